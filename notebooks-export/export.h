// Run folders to tables, figures, a page and a notebook: what the program `discquant-export` does.
//
//   OUT/report.html      everything on one page that needs nothing else
//   OUT/report.ipynb     the same as a notebook, which reads OUT/csv
//   OUT/csv/ID.csv       one per table and figure
//   OUT/svg, OUT/pdf     figures
//   OUT/export.json      what was made from which runs, and what is missing
//
// OUT appears complete or not at all.
#ifndef DQ_NOTEBOOKS_EXPORT_EXPORT_H
#define DQ_NOTEBOOKS_EXPORT_EXPORT_H

#include "core/base/status.h"

#include <stdbool.h>

enum { EXPORT_IPYNB = 1, EXPORT_HTML = 2, EXPORT_CSV = 4, EXPORT_SVG = 8, EXPORT_PDF = 16 };

struct export_settings {
    const char **runs; // [n_runs] paths
    int n_runs;
    int formats; // EXPORT_…; 0 = all but PDF
};

enum status export_run(const struct export_settings *settings, const char *out, bool force);

#endif
