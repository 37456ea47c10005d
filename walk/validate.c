#include "walk/validate.h"

#include "data/whole_file.h"
#include "walk/synthetic.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

const char *const study_names[] = {"theorem2", "theorem3", "proposition4", "adversarial", NULL};

int64_t study_replicates(const struct study *study, int64_t quick, int64_t full) {
    if (study->settings->replicates) return study->settings->replicates;
    return study->settings->quick ? quick : full;
}

int64_t study_coordinates(const struct study *study, int64_t quick, int64_t full) {
    if (study->settings->n) return study->settings->n;
    return study->settings->quick ? quick : full;
}

void study_point(struct study *study, const char *figure, const char *series, double x, struct interval value) {
    fprintf(study->stream, "%s,%s,%.10g,%.10g,", figure, series, x, value.mean);
    if (isnan(value.low))
        fprintf(study->stream, ",\n");
    else
        fprintf(study->stream, "%.10g,%.10g\n", value.low, value.high);
}

void study_verdict(struct study *study, const char *name, enum verdict verdict, const char *format, ...) {
    char why[1024], key[128];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    snprintf(key, sizeof key, "%s_why", name);
    record_string(run_folder_result(study->folder), name, verdict_names[verdict]);
    record_string(run_folder_result(study->folder), key, why);
    printf("%-24s %-9s  %s\n", name, verdict_names[verdict], why);
}

static enum status save_points(struct study *study) {
    char *path = run_folder_file(study->folder, "points.csv");
    if (!path) return STATUS_OK;
    enum status status = whole_file_put(path, study->points, study->points_bytes);
    free(path);
    return status;
}

static enum status work(struct study *study) {
    static enum status (*const studies[])(struct study * study) = {study_theorem2, study_theorem3, study_proposition4,
                                                                   study_adversarial};
    enum status status = STATUS_OK;
    study->stream = open_memstream(&study->points, &study->points_bytes);
    REQUIRE(study->stream, "memory for a stream");
    fprintf(study->stream, "figure,series,x,value,low,high\n");
    record_string(run_folder_result(study->folder), "study", study_names[study->settings->study]);
    record_string(run_folder_result(study->folder), "engine", study->settings->engine);
    TRY(studies[study->settings->study](study));
    fflush(study->stream);
    TRY(save_points(study));
    record_number(run_folder_result(study->folder), "seconds", run_folder_seconds(study->folder));
done:
    fclose(study->stream);
    free(study->points);
    return status;
}

enum status validate_run(const struct program_common *common, const struct validate_settings *s) {
    enum status status = STATUS_OK;
    struct study study = {.settings = s, .seed = common->seed};
    struct record *about = record_new();
    record_string(about, "study", study_names[s->study]);
    record_string(about, "engine", s->engine);
    record_string(about, "distribution", distribution_names[s->distribution]);
    record_bool(about, "quick", s->quick);
    record_integer(about, "n", s->n);
    record_integer(about, "replicates", s->replicates);
    record_integer(about, "seed", (int64_t)common->seed);
    TRY(program_run_folder(common, about, &study.folder));
    if (run_folder_is_done(study.folder)) goto done;
    status = run_folder_finish(study.folder, work(&study));
done:
    run_folder_free(study.folder);
    record_free(about);
    return status;
}
