// A paper (notebooks-export/paper.h) as files: a page that needs nothing else, a notebook that looks executed.
#ifndef DQ_NOTEBOOKS_EXPORT_REPORT_H
#define DQ_NOTEBOOKS_EXPORT_REPORT_H

#include "notebooks-export/paper.h"

// svg[i]: the drawn figure of item i, NULL where it has none. New strings.
char *report_html(const struct run_set *set, const struct paper *paper, char *const *svg);

// nbformat 4.5. Its cells read csv/ID.csv beside it and draw with matplotlib; their outputs are `svg` and the tables.
char *report_notebook(const struct run_set *set, const struct paper *paper, char *const *svg);

#endif
