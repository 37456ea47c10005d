#include "notebooks-export/markup.h"

#include <math.h>
#include <string.h>

void html_put(FILE *stream, const char *text) {
    for (const char *c = text; *c; c++) switch (*c) {
        case '&': fputs("&amp;", stream); break;
        case '<': fputs("&lt;", stream); break;
        case '>': fputs("&gt;", stream); break;
        case '"': fputs("&quot;", stream); break;
        default: fputc(*c, stream);
        }
}

void csv_put(FILE *stream, const char *text) {
    if (!strpbrk(text, ",\"\n\r")) {
        fputs(text, stream);
        return;
    }
    fputc('"', stream);
    for (const char *c = text; *c; c++) {
        if (*c == '"') fputc('"', stream);
        fputc(*c, stream);
    }
    fputc('"', stream);
}

void csv_put_number(FILE *stream, double value) {
    if (!isnan(value)) fprintf(stream, "%.10g", value);
}
