// Studies of what the paper states: what `discquant-walk validate STUDY` does. Every study draws instances, measures, and
// ends in one verdict per hypothesis, printed and in result.json.
//
//   OUT/metrics.jsonl  a line per instance drawn
//   OUT/points.csv     a line per point of a plot: study, series, x, and figures with their 95 % intervals
//   OUT/result.json    NAME (holds | fails | undecided) and NAME_why for every hypothesis; what else the study measures
#ifndef DQ_WALK_VALIDATE_H
#define DQ_WALK_VALIDATE_H

#include "data/program.h"
#include "walk/instance.h"
#include "walk/judge.h"
#include "walk/sweep.h"

#include <stdio.h>

enum study_kind { STUDY_THEOREM2, STUDY_THEOREM3, STUDY_PROPOSITION4, STUDY_ADVERSARIAL };
extern const char *const study_names[];

struct validate_settings {
    enum study_kind study;
    const char *engine; // that is judged; keeps M x = M y
    enum distribution distribution;
    bool quick;
    int64_t n;          // coordinates; 0: the study's own
    int64_t replicates; // draws of M per point; 0: the study's own number
    int64_t checkpoint_every;
};

enum status validate_run(const struct program_common *common, const struct validate_settings *settings);

// ---- inside a study ----

struct study {
    const struct validate_settings *settings;
    uint64_t seed;
    struct run_folder *folder;
    char *points; // of points.csv
    size_t points_bytes;
    FILE *stream; // that writes them
};

enum status study_theorem2(struct study *study);
enum status study_theorem3(struct study *study);
enum status study_proposition4(struct study *study);
enum status study_adversarial(struct study *study);

// The study's number, unless --replicates or --n says otherwise.
int64_t study_replicates(const struct study *study, int64_t quick, int64_t full);
int64_t study_coordinates(const struct study *study, int64_t quick, int64_t full);

// One line of points.csv.
void study_point(struct study *study, const char *figure, const char *series, double x, struct interval value);

void study_verdict(struct study *study, const char *name, enum verdict verdict, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
