// A small synthetic language: a distribution D_data of short stories with questions, from which independent documents can be
// drawn for ever, and whose entropy is known.
//
//     struct story story;
//     story_make(&(struct story_source){.seed = 0, .split = STORY_TRAIN}, document, &story);
//     fwrite(story.text, 1, (size_t)story.n_bytes, stdout);
//     total += story.nats;
//
// A document is one line of story and four to six lines "Q: …" with a line "A: …" behind each. People are somewhere and go
// elsewhere, have things and give, take and leave them, have some of one kind of small thing, find, lose, eat and share them.
// The answers follow from the story, so a model needs who is where, who has what, and sums up to 12.
//
// A document is a function of (seed, split, document). Every choice is drawn with a known probability and can be read off the
// text, so that -log P(text) = sum over choices of -log p(choice): the loss of the best possible model.
#ifndef DQ_DATA_STORY_H
#define DQ_DATA_STORY_H

#include <stdint.h>

// Documents of two splits share no random numbers. Their order is part of the format: new ones go behind.
enum story_split { STORY_TRAIN, STORY_VALIDATION, STORY_TEST, STORY_CALIBRATION };
#define STORY_SPLITS "train|validation|test|calibration"

enum story_question_kind {
    STORY_WHO_HAS,     // Who has the red ball?  Tom. / Nobody.
    STORY_WHERE,       // Where is Tom?  Tom is in the garden.
    STORY_WHERE_THING, // Where is the red ball?  The red ball is in the garden.
    STORY_COUNT,       // How many pears does Tom have?  Tom has 5 pears.
    STORY_TOGETHER,    // How many pears do Tom and Ann have together?  8.
    STORY_MORE,        // Who has more pears, Tom or Ann?  Tom.
    STORY_WHO_GAVE,    // Who gave the red ball to Tom?  Ann.
    STORY_HEADS,       // How many people are in the garden?  2.
    STORY_KINDS,
};

enum {
    STORY_PEOPLE_MAX = 4,
    STORY_THINGS_MAX = 2,
    STORY_PLACES_MAX = 4, // in one story
    STORY_EVENTS_MAX = 7,
    STORY_QUESTIONS_MAX = 6,
    STORY_COUNT_MAX = 12, // of all small things together
    STORY_CHOICES_MAX = 4,
    STORY_BYTES_MAX = 2048,
    STORY_CHOICE_BYTES = 64,
};

#define STORY_DOCUMENTS_MAX (INT64_C(1) << 53)

// How much of the language is used: the first n words of each list (data/story_words.h), and ranges. Tests enumerate small
// languages with it.
struct story_limits {
    int names, places, adjectives, nouns, kinds, weathers, times;
    int people_max, things_max, owners_max, amount_max; // 2 .. 4, 1 .. 2, 1 .. 2, 1 .. 6
    int events_min, events_max, questions_min, questions_max;
};

extern const struct story_limits story_limits_default;

struct story_source {
    uint64_t seed;
    enum story_split split;
    const struct story_limits *limits; // NULL: story_limits_default
    struct story_script *script;       // NULL: random choices; else data/story_teller.h
};

struct story_question {
    enum story_question_kind kind;
    int question;             // first byte of "Q:"
    int answer;               // first byte behind "A:", a space
    int end;                  // the newline behind the answer
    int person, other, thing; // indices into the world; -1: none
};

// What is the case at the end of the story. People are numbered in the order in which the story names them.
struct story_world {
    int n_people, people[STORY_PEOPLE_MAX]; // index of the name
    int place[STORY_PEOPLE_MAX];
    int count[STORY_PEOPLE_MAX], owner[STORY_PEOPLE_MAX]; // owner: the story has said how many
    int kind;                                             // of small things
    int n_things;
    struct story_thing {
        int adjective, noun, holder, place;
    } things[STORY_THINGS_MAX];             // holder -1: lies at place
    int n_places, places[STORY_PLACES_MAX]; // the story has named
    int n_gifts;
    struct story_gift {
        int thing, from, to;
    } gifts[STORY_EVENTS_MAX];
};

struct story {
    char text[STORY_BYTES_MAX]; // every line ends with a newline; no zero behind it
    int n_bytes, n_words;
    double nats; // -log of the document's probability
    struct story_world world;
    int n_questions;
    struct story_question questions[STORY_QUESTIONS_MAX];
};

// 0 <= document < STORY_DOCUMENTS_MAX.
void story_make(const struct story_source *source, int64_t document, struct story *out);

// Answers to choose from: each goes behind the "A:" as it is (" Tom."), all but the gold one are wrong. Two for
// STORY_MORE, else four. The order and the wrong answers are a function of (seed, split, document, question).
struct story_choices {
    int n, gold;
    char texts[STORY_CHOICES_MAX][STORY_CHOICE_BYTES];
};
void story_choices(const struct story_source *source, int64_t document, const struct story *story, int question,
                   struct story_choices *out);

#endif
