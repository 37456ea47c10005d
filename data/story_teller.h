// Inside of the story generator: choices with known probability, text, and the parts of a story. Tests use it to make a
// document from given choices.
#ifndef DQ_DATA_STORY_TELLER_H
#define DQ_DATA_STORY_TELLER_H

#include "core/base/rng.h"
#include "data/story.h"

#include <stdbool.h>

enum { STORY_SCRIPT_MAX = 256 };

// Choice i takes its option number picks[i] of those that have a probability above zero; choices behind the n_picks-th take
// the first. What there was to choose is written down.
struct story_script {
    int n_picks, picks[STORY_SCRIPT_MAX];
    int n_made;
    int options[STORY_SCRIPT_MAX]; // of choice i, with probability above zero
    int text[STORY_SCRIPT_MAX];    // bytes of text there were before choice i
};

struct teller {
    struct rng rng;
    uint64_t next, end; // indices of random words
    struct story_script *script;
    const struct story_limits *limits;
    struct story *story;
    char *at;           // end of the text
    double probability; // of the choices not yet in story->nats
    int subject;        // the person that "he" or "she" means now; -1: nobody
    bool known[16];     // places the story has named
    int n_asked, asked[STORY_QUESTIONS_MAX];
};

// Option 0 .. n-1, n >= 1, with probability weights[i] / sum.
int teller_choose(struct teller *teller, const int *weights, int n);
int teller_choose_evenly(struct teller *teller, int n);
// One of the numbers first .. last, evenly.
int teller_choose_number(struct teller *teller, int first, int last);
// Whether to go on, after `done` of at least `min` and at most `max`, so that all totals are equally likely.
bool teller_goes_on(struct teller *teller, int done, int min, int max);

void teller_say(struct teller *teller, const char *text);
void teller_say_number(struct teller *teller, int number);
void teller_say_person(struct teller *teller, int person);
void teller_say_thing(struct teller *teller, int thing);                 // "red ball"
void teller_say_amount(struct teller *teller, int n, bool more);         // "2 more pears", "1 pear", "no pears"
void teller_say_people(struct teller *teller, const int *people, int n); // "Ann, Ben and Tom"

// The parts of a document, in this order.
void story_tell_beginning(struct teller *teller);
void story_tell_events(struct teller *teller);
void story_tell_questions(struct teller *teller);

#endif
