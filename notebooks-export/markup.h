// Text escaped for HTML and quoted for CSV, written to a stream.
#ifndef DQ_NOTEBOOKS_EXPORT_MARKUP_H
#define DQ_NOTEBOOKS_EXPORT_MARKUP_H

#include <stdio.h>

void html_put(FILE *stream, const char *text);
void csv_put(FILE *stream, const char *text);
void csv_put_number(FILE *stream, double value); // empty for NaN

#endif
