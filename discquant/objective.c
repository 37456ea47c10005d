#include "discquant/objective.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct part {
    const char *name;
    size_t offset;
} parts[] = {
    {"kl", offsetof(struct objective, kl)},
    {"ground-truth", offsetof(struct objective, truth)},
    {"layer", offsetof(struct objective, layer)},
    {"linear", offsetof(struct objective, linear)},
};
enum { PARTS = sizeof parts / sizeof *parts };

static double *weight_of(struct objective *objective, int i) {
    return (double *)(void *)((char *)objective + parts[i].offset);
}

static enum status refuse(const char *text, const char *what) {
    return status_set(
        STATUS_INVALID,
        "--objective %s: %s; give a list of kl, ground-truth, layer, linear, each once and with its weight, "
        "kl:0.5,layer:0.5 say",
        text, what);
}

enum status objective_parse(const char *text, struct objective *out) {
    struct objective objective = {0};
    bool given[PARTS] = {0};
    double sum = 0;
    for (const char *at = text;;) {
        size_t n = strcspn(at, ":,"), i = 0;
        while (i < PARTS && (strlen(parts[i].name) != n || strncmp(parts[i].name, at, n) != 0)) i++;
        if (i == PARTS) return refuse(text, "an unknown name");
        if (given[i]) return refuse(text, "a name given twice");
        given[i] = true;
        double weight = 1;
        at += n;
        if (*at == ':') {
            char *end;
            weight = strtod(at + 1, &end);
            if (end == at + 1 || (*end && *end != ',') || !isfinite(weight) || weight < 0)
                return refuse(text, "a weight that is not a number of at least 0");
            at = end;
        }
        *weight_of(&objective, (int)i) = weight;
        sum += weight;
        if (!*at) break;
        at++;
    }
    if (!(sum > 0)) return refuse(text, "all weights are 0");
    *out = objective;
    return STATUS_OK;
}

bool objective_is_kl(const struct objective *o) {
    return !(o->truth > 0) && !(o->layer > 0) && !(o->linear > 0) && (o->kl == 1 || !(o->kl > 0));
}

// The fewest digits that give the number back.
static void number_text(double value, char text[32]) {
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
}

const char *objective_text(const struct objective *objective, char text[OBJECTIVE_TEXT]) {
    struct objective o = *objective;
    bool alone = (o.kl > 0) + (o.truth > 0) + (o.layer > 0) + (o.linear > 0) == 1, first = true;
    char number[32];
    text[0] = 0;
    for (int i = 0; i < PARTS; i++) {
        double weight = *weight_of(&o, i);
        if (weight == 0) continue;
        if (!first) strcat(text, ",");
        first = false;
        strcat(text, parts[i].name);
        if (alone && weight == 1) continue;
        number_text(weight, number);
        strcat(strcat(text, ":"), number);
    }
    return first ? strcpy(text, parts[0].name) : text;
}
