// Choice i has option o with probability weight[o] / sum(weight), by a bounded draw without bias (Lemire, "Fast random integer
// generation in an interval", 2019): exact rational probabilities. Random word k of document d is word (d * 1024 + k) of the
// Philox stream (seed, RNG_STORY + 2 split).
#include "data/story.h"

#include "core/base/status.h"
#include "data/story_teller.h"
#include "data/story_words.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS_MAX = 1024 };

const struct story_limits story_limits_default = {
    .names = STORY_NAMES,
    .places = STORY_PLACES,
    .adjectives = STORY_ADJECTIVES,
    .nouns = STORY_NOUNS,
    .kinds = STORY_AMOUNTS,
    .weathers = STORY_WEATHERS,
    .times = STORY_TIMES,
    .people_max = 3,
    .things_max = STORY_THINGS_MAX,
    .owners_max = 2,
    .amount_max = 6,
    .events_min = 1,
    .events_max = 4,
    .questions_min = 4,
    .questions_max = STORY_QUESTIONS_MAX,
};

// ---- choices ----

static uint32_t draw_below(struct teller *teller, uint32_t bound) {
    for (;;) {
        REQUIRE(teller->next < teller->end, "a story has used up its random numbers");
        uint64_t product = (uint64_t)rng_bits(teller->rng, teller->next++) * bound;
        if ((uint32_t)product >= bound || (uint32_t)product >= -bound % bound) return (uint32_t)(product >> 32);
    }
}

// The next option of the script as a position among `total` parts.
static int script_next(struct teller *teller, const int *weights, int n) {
    struct story_script *script = teller->script;
    int i = script->n_made++, options = 0, option = -1;
    REQUIRE(i < STORY_SCRIPT_MAX, "a story has more choices than its script");
    int want = i < script->n_picks ? script->picks[i] : 0;
    for (int o = 0; o < n; o++)
        if ((!weights || weights[o] > 0) && options++ == want) option = o;
    REQUIRE(option >= 0, "the script has an option that is not there");
    script->options[i] = options;
    script->text[i] = (int)(teller->at - teller->story->text);
    return option;
}

static void count_probability(struct teller *teller, int weight, int total) {
    teller->probability *= (double)weight / (double)total;
    if (teller->probability > 1e-250) return;
    teller->story->nats -= log(teller->probability);
    teller->probability = 1;
}

int teller_choose(struct teller *teller, const int *weights, int n) {
    int total = 0, option = 0;
    for (int o = 0; o < n; o++) total += weights[o];
    REQUIRE(total > 0, "there is nothing to choose from");
    if (teller->script) {
        option = script_next(teller, weights, n);
    } else {
        int left = (int)draw_below(teller, (uint32_t)total);
        while (left >= weights[option]) left -= weights[option++];
    }
    count_probability(teller, weights[option], total);
    return option;
}

int teller_choose_evenly(struct teller *teller, int n) {
    REQUIRE(n > 0, "there is nothing to choose from");
    int option = teller->script ? script_next(teller, NULL, n) : (int)draw_below(teller, (uint32_t)n);
    count_probability(teller, 1, n);
    return option;
}

int teller_choose_number(struct teller *teller, int first, int last) {
    return first + teller_choose_evenly(teller, last - first + 1);
}

bool teller_goes_on(struct teller *teller, int done, int min, int max) {
    if (done < min) return true;
    if (done >= max) return false;
    return teller_choose(teller, (const int[]){1, max - done}, 2) == 1;
}

// ---- text ----

void teller_say(struct teller *teller, const char *text) {
    size_t n = strlen(text);
    REQUIRE(n < (size_t)(teller->story->text + STORY_BYTES_MAX - teller->at), "a story is too long");
    memcpy(teller->at, text, n);
    teller->at += n;
}

void teller_say_number(struct teller *teller, int number) {
    static const char *const numbers[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"};
    teller_say(teller, numbers[number]);
}

void teller_say_person(struct teller *teller, int person) {
    teller_say(teller, story_names[teller->story->world.people[person]]);
}

void teller_say_thing(struct teller *teller, int thing) {
    const struct story_thing *it = &teller->story->world.things[thing];
    teller_say(teller, story_adjectives[it->adjective]);
    teller_say(teller, " ");
    teller_say(teller, story_nouns[it->noun]);
}

void teller_say_amount(struct teller *teller, int n, bool more) {
    const struct story_amount *kind = &story_amounts[teller->story->world.kind];
    if (n == 0)
        teller_say(teller, "no");
    else
        teller_say_number(teller, n);
    teller_say(teller, more ? " more " : " ");
    teller_say(teller, n == 1 ? kind->one : kind->many);
}

void teller_say_people(struct teller *teller, const int *people, int n) {
    for (int i = 0; i < n; i++) {
        if (i > 0) teller_say(teller, i + 1 < n ? ", " : " and ");
        teller_say_person(teller, people[i]);
    }
}

// ---- documents ----

static struct rng story_rng(const struct story_source *source, unsigned part) {
    return (struct rng){.seed = source->seed, .stream = RNG_STORY + 2 * (uint64_t)source->split + part};
}

static struct teller teller_new(const struct story_source *source, int64_t document, unsigned part) {
    REQUIRE(document >= 0 && document < STORY_DOCUMENTS_MAX, "there is no such document");
    uint64_t first = (uint64_t)document * DRAWS_MAX;
    return (struct teller){.rng = story_rng(source, part),
                           .next = first,
                           .end = first + DRAWS_MAX,
                           .limits = source->limits ? source->limits : &story_limits_default,
                           .probability = 1,
                           .subject = -1};
}

void story_make(const struct story_source *source, int64_t document, struct story *out) {
    struct teller teller = teller_new(source, document, 0);
    teller.script = source->script;
    if (teller.script) teller.script->n_made = 0;
    teller.story = out;
    teller.at = out->text;
    out->nats = 0;
    out->n_questions = 0;
    out->world = (struct story_world){0};
    story_tell_beginning(&teller);
    story_tell_events(&teller);
    teller_say(&teller, "\n");
    story_tell_questions(&teller);
    out->nats -= log(teller.probability);
    out->n_bytes = (int)(teller.at - out->text);
    out->n_words = 0;
    for (int i = 0; i < out->n_bytes; i++) out->n_words += out->text[i] == ' ' || out->text[i] == '\n';
}

// ---- multiple choice ----

static void choice_add(struct story_choices *choices, const char *before, const char *word) {
    char text[STORY_CHOICE_BYTES];
    char *end = stpcpy(stpcpy(stpcpy(text, before), word), ".");
    REQUIRE(end < text + sizeof text, "an answer is too long");
    for (int i = 0; i < choices->n; i++)
        if (strcmp(choices->texts[i], text) == 0) return;
    if (choices->n < STORY_CHOICES_MAX) strcpy(choices->texts[choices->n++], text);
}

// Those of the story first, then any others.
static void wrong_words(struct teller *teller, struct story_choices *choices, const char *before, const int *own,
                        int n_own, const char *const *words, int n_words) {
    int from = teller_choose_evenly(teller, n_own);
    for (int i = 0; i < n_own; i++) choice_add(choices, before, words[own[(from + i) % n_own]]);
    from = teller_choose_evenly(teller, n_words);
    for (int i = 0; i < n_words; i++) choice_add(choices, before, words[(from + i) % n_words]);
}

// Numbers close to the right one, from 0 to `max`; of small things where `owner` is a person.
static void wrong_numbers(struct teller *teller, struct story_choices *choices, int right, int max, int owner) {
    const struct story_world *world = &teller->story->world;
    int first = right < 3 ? 0 : right - 3, last = first + 6;
    if (last > max) last = max, first = max > 6 ? max - 6 : 0;
    while (choices->n < STORY_CHOICES_MAX) {
        char before[STORY_CHOICE_BYTES] = " ", text[STORY_CHOICE_BYTES];
        int number = teller_choose_number(teller, first, last);
        snprintf(text, sizeof text, "%d", number);
        if (owner >= 0) {
            const struct story_amount *kind = &story_amounts[world->kind];
            snprintf(before, sizeof before, " %s has ", story_names[world->people[owner]]);
            if (number == 0)
                snprintf(text, sizeof text, "no %s", kind->many);
            else
                snprintf(text, sizeof text, "%d %s", number, number == 1 ? kind->one : kind->many);
        }
        choice_add(choices, before, text);
    }
}

// What stands before the place in the answer of the story.
static void before_place(const struct story *story, const struct story_question *asked, char *before) {
    int n = asked->end - asked->answer;
    memcpy(before, story->text + asked->answer, (size_t)n);
    before[n] = 0;
    strrchr(before, ' ')[1] = 0;
}

void story_choices(const struct story_source *source, int64_t document, const struct story *story, int question,
                   struct story_choices *out) {
    REQUIRE(question >= 0 && question < story->n_questions, "the story has no such question");
    struct teller teller = teller_new(source, document, 1);
    struct story scratch = {.world = story->world}; // takes the probabilities nobody asks for
    teller.story = &scratch;
    teller.next += (uint64_t)question * (DRAWS_MAX / STORY_QUESTIONS_MAX);
    const struct story_question *asked = &story->questions[question];
    const struct story_world *world = &story->world;
    char before[STORY_CHOICE_BYTES];
    int n = asked->end - asked->answer;
    *out = (struct story_choices){.n = 1};
    memcpy(out->texts[0], story->text + asked->answer, (size_t)n);
    switch (asked->kind) {
    case STORY_WHO_HAS:
        if (teller_choose_evenly(&teller, 2) == 0) choice_add(out, " ", "Nobody");
        // fall through
    case STORY_WHO_GAVE:
        wrong_words(&teller, out, " ", world->people, world->n_people, story_names, teller.limits->names);
        break;
    case STORY_MORE:
        choice_add(out, " ", story_names[world->people[asked->person]]);
        choice_add(out, " ", story_names[world->people[asked->other]]);
        break;
    case STORY_WHERE:
    case STORY_WHERE_THING:
        before_place(story, asked, before);
        wrong_words(&teller, out, before, world->places, world->n_places, story_places, teller.limits->places);
        break;
    case STORY_COUNT: wrong_numbers(&teller, out, world->count[asked->person], STORY_COUNT_MAX, asked->person); break;
    case STORY_TOGETHER: wrong_numbers(&teller, out, atoi(out->texts[0]), STORY_COUNT_MAX, -1); break;
    case STORY_HEADS: wrong_numbers(&teller, out, atoi(out->texts[0]), STORY_PEOPLE_MAX, -1); break;
    case STORY_KINDS: break;
    }
    out->gold = teller_choose_evenly(&teller, out->n);
    char right[STORY_CHOICE_BYTES];
    memcpy(right, out->texts[0], sizeof right);
    memcpy(out->texts[0], out->texts[out->gold], sizeof right);
    memcpy(out->texts[out->gold], right, sizeof right);
}
