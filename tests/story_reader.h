// An interpreter of the English that data/story.h writes. It knows the text only: it follows what the sentences say, checks that
// they can be true and are well formed, and answers the questions.
//
//     struct reader reader;
//     reader_read(&reader, text, n_bytes);   // fails the test when something is wrong
#ifndef DQ_TESTS_STORY_READER_H
#define DQ_TESTS_STORY_READER_H

#include "tests/check.h"

#include <ctype.h>
#include <stdbool.h>

enum { READER_WORDS = 40, READER_PEOPLE = 8, READER_THINGS = 4, READER_GIFTS = 20 };

struct reader_person {
    char name[16], place[16];
    int count;
    bool counted;
};
struct reader_thing {
    char name[40];
    int holder;
    char place[16];
};

struct reader {
    char document[4096]; // for messages
    char sentence[512];
    char *words[READER_WORDS];
    int n_words;
    struct reader_person people[READER_PEOPLE];
    int n_people;
    struct reader_thing things[READER_THINGS];
    int n_things;
    struct {
        int thing, from, to;
    } gifts[READER_GIFTS];
    int n_gifts;
    char one[16], many[16]; // the small things, as the text has them; "": not seen
    int he, she;            // whom a pronoun can mean; -1: nobody
    int n_questions;
};

#define reader_check(reader, condition)                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print_error("not so: %s\nafter '%s' in:\n%s\n", #condition, (reader)->sentence, (reader)->document);       \
            fail();                                                                                                    \
        }                                                                                                              \
    } while (0)

static inline bool reader_is(const struct reader *r, int i, const char *word) {
    return i < r->n_words && strcmp(r->words[i], word) == 0;
}

static inline bool reader_is_she(const char *name) {
    static const char *const names[] = {"Ann", "Eva", "Kate", "Lily", "Lucy", "Mia", "Rosa", "Sue"};
    for (int i = 0; i < 8; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

static inline int reader_person(const struct reader *r, const char *name) {
    for (int p = 0; p < r->n_people; p++)
        if (strcmp(r->people[p].name, name) == 0) return p;
    return -1;
}

static inline int reader_known_person(const struct reader *r, int i) {
    int p = i < r->n_words ? reader_person(r, r->words[i]) : -1;
    reader_check(r, p >= 0);
    return p;
}

// "red ball" at word i.
static inline int reader_thing(const struct reader *r, int i) {
    reader_check(r, i + 1 < r->n_words);
    char name[40];
    snprintf(name, sizeof name, "%.15s %.15s", r->words[i], r->words[i + 1]);
    for (int t = 0; t < r->n_things; t++)
        if (strcmp(r->things[t].name, name) == 0) return t;
    return -1;
}

static inline int reader_known_thing(const struct reader *r, int i) {
    int t = reader_thing(r, i);
    reader_check(r, t >= 0);
    return t;
}

static inline const char *reader_thing_place(const struct reader *r, int t) {
    return r->things[t].holder >= 0 ? r->people[r->things[t].holder].place : r->things[t].place;
}

static inline void reader_plural(const char *one, char *many) {
    size_t n = strlen(one);
    char last = one[n - 1];
    strcpy(many, one);
    if (last == 'y')
        strcpy(many + n - 1, "ies");
    else if (last == 'f')
        strcpy(many + n - 1, "ves");
    else
        strcpy(many + n, n > 2 && last == 'h' && (one[n - 2] == 'c' || one[n - 2] == 's') ? "es" : "s");
}

// "2 pears", "1 more pear", "no pears" at word i: the number; *next is the word behind it.
static inline int reader_amount(struct reader *r, int i, bool *more, int *next) {
    reader_check(r, i + 1 < r->n_words);
    int n = reader_is(r, i, "no") ? 0 : atoi(r->words[i]);
    reader_check(r, (n > 0 && n <= 12 && isdigit((unsigned char)*r->words[i])) || reader_is(r, i, "no"));
    *more = reader_is(r, ++i, "more");
    i += *more;
    reader_check(r, i < r->n_words);
    char *word = n == 1 ? r->one : r->many;
    if (!*word) strcpy(word, r->words[i]);
    reader_check(r, strcmp(word, r->words[i]) == 0);
    *next = i + 1;
    if (*r->one && *r->many) {
        char many[20];
        reader_plural(r->one, many);
        reader_check(r, strcmp(many, r->many) == 0);
    }
    return n;
}

// Cuts the sentence into words without the signs behind them.
static inline void reader_split(struct reader *r, char *buffer) {
    r->n_words = 0;
    for (char *word = strtok(buffer, " "); word; word = strtok(NULL, " ")) {
        reader_check(r, r->n_words < READER_WORDS);
        word[strcspn(word, ".,?")] = 0;
        r->words[r->n_words++] = word;
    }
}

static inline void reader_new_thing(struct reader *r, int article, int holder, const char *place) {
    const char *word = r->words[article + 1];
    reader_check(r, reader_is(r, article, strchr("aeiou", *word) ? "an" : "a"));
    reader_check(r, reader_thing(r, article + 1) < 0);
    struct reader_thing *thing = &r->things[r->n_things++];
    snprintf(thing->name, sizeof thing->name, "%.15s %.15s", word, r->words[article + 2]);
    thing->holder = holder;
    strcpy(thing->place, place);
}

// The people at the start of the sentence; the number of the word behind them.
static inline int reader_subjects(struct reader *r, int *people, int *n) {
    int i = 0;
    *n = 0;
    if (reader_is(r, 0, "Then") || reader_is(r, 0, "Later") || reader_is(r, 0, "Now")) i++;
    if (reader_is(r, i, i ? "he" : "He") || reader_is(r, i, i ? "she" : "She")) {
        people[(*n)++] = tolower((unsigned char)*r->words[i]) == 'h' ? r->he : r->she;
        reader_check(r, people[0] >= 0);
        return i + 1;
    }
    for (; i < r->n_words && isupper((unsigned char)*r->words[i]); i += 1 + reader_is(r, i + 1, "and")) {
        int p = reader_person(r, r->words[i]);
        if (p < 0) strcpy(r->people[p = r->n_people++].name, r->words[i]);
        people[(*n)++] = p;
    }
    reader_check(r, *n > 0);
    return i;
}

static inline void reader_go(struct reader *r, const int *people, int n, int i) {
    reader_check(r, reader_is(r, i + 1, "to") && reader_is(r, i + 2, "the") && i + 4 == r->n_words);
    for (int k = 0; k < n; k++) {
        char *place = r->people[people[k]].place;
        reader_check(r, strcmp(place, r->words[i + 3]) != 0 && *place);
        reader_check(r, k == 0 || people[k] != people[0]);
        strcpy(place, r->words[i + 3]);
    }
}

static inline void reader_there_too(struct reader *r, const int *people, int n) {
    int there = 0;
    for (int k = 0; k < n; k++) reader_check(r, strcmp(r->people[people[k]].place, r->people[people[0]].place) == 0);
    for (int p = 0; p < r->n_people; p++) there += strcmp(r->people[p].place, r->people[people[0]].place) == 0;
    reader_check(r, there > n);
}

static inline void reader_together(struct reader *r, int p, int q) {
    reader_check(r, p != q && strcmp(r->people[p].place, r->people[q].place) == 0);
}

// "gives Ben the red ball", "gives the red ball to Ben", "gives Ben 2 pears", "gives 2 pears to Ben". Returns who gets it.
static inline int reader_give(struct reader *r, int from, int i) {
    bool person_first = reader_person(r, r->words[i + 1]) >= 0, more = false;
    int at = i + 1 + person_first, next, to;
    if (reader_is(r, at, "the")) {
        int t = reader_known_thing(r, at + 1);
        next = at + 3;
        to = reader_known_person(r, person_first ? i + 1 : next + 1);
        reader_check(r, r->things[t].holder == from);
        r->things[t].holder = to;
        r->gifts[r->n_gifts].thing = t, r->gifts[r->n_gifts].from = from, r->gifts[r->n_gifts++].to = to;
    } else {
        int n = reader_amount(r, at, &more, &next);
        to = reader_known_person(r, person_first ? i + 1 : next + 1);
        reader_check(r, !more && n > 0 && n <= r->people[from].count);
        r->people[from].count -= n;
        r->people[to].count += n;
        r->people[to].counted = true;
    }
    reader_together(r, from, to);
    reader_check(r, person_first ? next == r->n_words : reader_is(r, next, "to") && next + 2 == r->n_words);
    return to;
}

// What one person does: the verb is word i. Returns another person that is named; -1: none.
static inline int reader_act(struct reader *r, int p, int i) {
    struct reader_person *person = &r->people[p];
    bool more = false;
    int next = 0;
    if (reader_is(r, i, "gives")) return reader_give(r, p, i);
    if (reader_is(r, i, "has")) {
        if (reader_is(r, i + 1, "a") || reader_is(r, i + 1, "an")) {
            reader_new_thing(r, i + 1, p, "");
            return -1;
        }
        int n = reader_amount(r, i + 1, &more, &next);
        reader_check(r, !more && next == r->n_words);
        if (reader_is(r, 0, "Now")) reader_check(r, person->counted && person->count == n);
        person->count = n;
        person->counted = true;
    } else if (reader_is(r, i, "finds") || reader_is(r, i, "gets")) {
        int n = reader_amount(r, i + 1, &more, &next);
        reader_check(r, n > 0 && more == (person->count > 0) && next == r->n_words);
        person->count += n;
        person->counted = true;
    } else if (reader_is(r, i, "loses") || reader_is(r, i, "eats")) {
        int n = reader_amount(r, i + 1, &more, &next);
        reader_check(r, n > 0 && !more && n <= person->count && next == r->n_words);
        person->count -= n;
        reader_check(r, !reader_is(r, i, "eats") || strstr("apple cherry peach nut cookie pear apples cherries peaches "
                                                           "nuts cookies pears",
                                                           r->words[i + 2]));
    } else if (reader_is(r, i, "takes")) {
        int t = reader_known_thing(r, i + 2), other = reader_known_person(r, i + 5);
        reader_check(r, reader_is(r, i + 4, "from") && r->things[t].holder == other && i + 6 == r->n_words);
        reader_together(r, p, other);
        r->things[t].holder = p;
        return other;
    } else if (reader_is(r, i, "picks")) {
        int t = reader_known_thing(r, i + 3);
        reader_check(r, r->things[t].holder < 0 && strcmp(r->things[t].place, person->place) == 0);
        r->things[t].holder = p;
    } else {
        reader_check(r, reader_is(r, i, "leaves") && reader_is(r, i + 4, "in") && i + 7 == r->n_words);
        int t = reader_known_thing(r, i + 2);
        reader_check(r, r->things[t].holder == p && strcmp(r->words[i + 6], person->place) == 0);
        r->things[t].holder = -1;
        strcpy(r->things[t].place, person->place);
    }
    return -1;
}

static inline bool reader_is_one_of(const struct reader *r, int i, const char *a, const char *b, const char *c) {
    return reader_is(r, i, a) || reader_is(r, i, b) || reader_is(r, i, c);
}

static inline void reader_sentence(struct reader *r, const char *text, size_t n) {
    char buffer[sizeof r->sentence];
    int people[READER_PEOPLE], n_subjects, total = 0, other = -1;
    reader_check(r, n < sizeof buffer);
    memcpy(r->sentence, text, n), r->sentence[n] = 0;
    strcpy(buffer, r->sentence);
    reader_split(r, buffer);
    if (reader_is(r, 0, "There")) {
        reader_new_thing(r, 2, -1, r->words[7]);
        r->he = r->she = -1;
        return;
    }
    int i = reader_subjects(r, people, &n_subjects);
    bool one = n_subjects == 1;
    if (reader_is_one_of(r, i, one ? "goes" : "go", one ? "walks" : "walk", one ? "runs" : "run")) {
        reader_go(r, people, n_subjects, i);
    } else if (reader_is(r, i, one ? "is" : "are") && reader_is(r, i + 1, "there")) {
        reader_there_too(r, people, n_subjects);
        one = false; // a pronoun behind it could mean the one who came
    } else if (reader_is(r, i, one ? "is" : "are")) {
        for (int k = 0; k < n_subjects; k++) strcpy(r->people[people[k]].place, r->words[i + 3]);
    } else {
        reader_check(r, one);
        other = reader_act(r, people[0], i);
    }
    for (int p = 0; p < r->n_people; p++) total += r->people[p].count;
    reader_check(r, total <= 12);
    r->he = r->she = -1;
    bool she = reader_is_she(r->people[people[0]].name);
    if (!one || (other >= 0 && reader_is_she(r->people[other].name) == she)) return;
    *(she ? &r->she : &r->he) = people[0];
}

// "Tom has 5 pears": whether the text's answer says so of the person at word i of the question.
static inline void reader_check_has(struct reader *r, int i, int n, const char *text, size_t n_text) {
    char name[16], buffer[64];
    bool more;
    int next;
    snprintf(name, sizeof name, "%s", r->words[i]);
    reader_check(r, n_text < sizeof buffer && text[n_text - 1] == '.');
    memcpy(buffer, text, n_text), buffer[n_text] = 0;
    reader_split(r, buffer);
    reader_check(r, reader_is(r, 0, name) && reader_is(r, 1, "has"));
    reader_check(r, reader_amount(r, 2, &more, &next) == n && !more && next == r->n_words);
}

// How many; *owner: of whom, as a word of the question, or 0.
static inline int reader_how_many(struct reader *r, int *owner) {
    int n = 0;
    *owner = 0;
    if (reader_is(r, 2, "people")) {
        for (int p = 0; p < r->n_people; p++) n += strcmp(r->people[p].place, r->words[6]) == 0;
        return n;
    }
    reader_check(r, !*r->many || reader_is(r, 2, r->many));
    if (!reader_is(r, 3, "do")) *owner = 4;
    int last = reader_is(r, 3, "do") ? 6 : 4;
    for (int i = 4; i <= last; i += 2) {
        int p = reader_known_person(r, i);
        reader_check(r, r->people[p].counted);
        n += r->people[p].count;
    }
    return n;
}

static inline void reader_answer_who(struct reader *r, char *answer) {
    if (reader_is(r, 2, "more")) {
        int p = reader_known_person(r, 4), q = reader_known_person(r, 6),
            difference = r->people[p].count - r->people[q].count;
        reader_check(r, difference != 0);
        strcpy(answer, r->people[difference > 0 ? p : q].name);
        return;
    }
    int t = reader_known_thing(r, 3), found = 0;
    if (reader_is(r, 1, "has")) {
        strcpy(answer, r->things[t].holder < 0 ? "Nobody" : r->people[r->things[t].holder].name);
        return;
    }
    int to = reader_known_person(r, 6);
    for (int g = 0; g < r->n_gifts; g++) {
        if (r->gifts[g].thing != t || r->gifts[g].to != to) continue;
        strcpy(answer, r->people[r->gifts[g].from].name);
        found++;
    }
    reader_check(r, found == 1);
}

// Compares the answer of the text with its own.
static inline void reader_question(struct reader *r, const char *question, size_t n, const char *answer,
                                   size_t n_answer) {
    char buffer[sizeof r->sentence], own[128] = "";
    reader_check(r, n < sizeof buffer && question[n - 1] == '?');
    memcpy(r->sentence, question, n), r->sentence[n] = 0;
    strcpy(buffer, r->sentence);
    reader_split(r, buffer);
    if (reader_is(r, 0, "Where") && reader_is(r, 2, "the"))
        sprintf(own, "The %s %s is in the %s", r->words[3], r->words[4],
                reader_thing_place(r, reader_known_thing(r, 3)));
    else if (reader_is(r, 0, "Where"))
        sprintf(own, "%s is in the %s", r->words[2], r->people[reader_known_person(r, 2)].place);
    else if (reader_is(r, 0, "How")) {
        int owner, count = reader_how_many(r, &owner);
        if (owner) {
            reader_check_has(r, owner, count, answer, n_answer);
            r->n_questions++;
            return;
        }
        sprintf(own, "%d", count);
    } else
        reader_answer_who(r, own);
    strcat(own, ".");
    reader_check(r, strlen(own) == n_answer && memcmp(own, answer, n_answer) == 0);
    r->n_questions++;
}

static inline void reader_read(struct reader *r, const char *text, int n_bytes) {
    *r = (struct reader){.he = -1, .she = -1};
    memcpy(r->document, text, (size_t)n_bytes);
    char *at = r->document, *line = strchr(at, '\n');
    reader_check(r, line && strncmp(at, "It is a ", 8) == 0);
    at = strchr(at, '.') + 1;
    while (at < line) {
        char *dot = strchr(at, '.');
        reader_check(r, *at == ' ' && dot && dot < line && isupper((unsigned char)at[1]));
        reader_sentence(r, at + 1, (size_t)(dot - at));
        at = dot + 1;
    }
    for (at = line + 1; *at;) {
        char *end = strchr(at, '\n'), *answer = end + 1, *answer_end = end ? strchr(answer, '\n') : NULL;
        reader_check(r, strncmp(at, "Q: ", 3) == 0 && answer_end && strncmp(answer, "A: ", 3) == 0);
        reader_question(r, at + 3, (size_t)(end - at - 3), answer + 3, (size_t)(answer_end - answer - 3));
        at = answer_end + 1;
    }
}

#endif
