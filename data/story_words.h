// The words of the story language. Lists are only added to behind their ends, and that changes the language: documents of an
// earlier version come from its own story_limits.
#ifndef DQ_DATA_STORY_WORDS_H
#define DQ_DATA_STORY_WORDS_H

enum {
    STORY_NAMES = 16, // even: she, odd: he
    STORY_PLACES = 10,
    STORY_ADJECTIVES = 8,
    STORY_NOUNS = 12,
    STORY_AMOUNTS = 12,
    STORY_WEATHERS = 8,
    STORY_TIMES = 4,
};

extern const char *const story_names[STORY_NAMES];
extern const char *const story_places[STORY_PLACES]; // in the …, to the …
extern const char *const story_adjectives[STORY_ADJECTIVES];
extern const char *const story_nouns[STORY_NOUNS];
extern const struct story_amount {
    const char *one, *many;
    int edible;
} story_amounts[STORY_AMOUNTS];
extern const char *const story_weathers[STORY_WEATHERS]; // It is a … morning.
extern const char *const story_times[STORY_TIMES];

#endif
