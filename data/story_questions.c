// Questions about the end of the story: the kind, of those that can be asked, then one that has not been asked yet.
#include "core/base/status.h"
#include "data/story_teller.h"
#include "data/story_words.h"

static const int kind_weights[STORY_KINDS] = {6, 6, 3, 4, 1, 2, 3, 1};

enum { TARGETS_MAX = 12 };

// What can be asked: person, other person, thing or place (-1: none).
struct targets {
    int n;
    struct target {
        int person, other, thing, place;
    } at[TARGETS_MAX];
};

static int target_code(enum story_question_kind kind, struct target target) {
    int code = (int)kind;
    code = code * 8 + target.person + 1;
    code = code * 8 + target.other + 1;
    code = code * 8 + target.thing + 1;
    return code * 16 + target.place + 1;
}

static void target_add(const struct teller *teller, enum story_question_kind kind, struct targets *targets,
                       struct target target) {
    int code = target_code(kind, target);
    for (int i = 0; i < teller->n_asked; i++)
        if (teller->asked[i] == code) return;
    targets->at[targets->n++] = target;
}

static int n_gifts_to(const struct story_world *world, int thing, int to) {
    int n = 0;
    for (int g = 0; g < world->n_gifts; g++) n += world->gifts[g].thing == thing && world->gifts[g].to == to;
    return n;
}

static void targets_of(const struct teller *teller, enum story_question_kind kind, struct targets *targets) {
    const struct story_world *world = &teller->story->world;
    targets->n = 0;
    bool of_thing = kind == STORY_WHO_HAS || kind == STORY_WHERE_THING;
    for (int t = 0; t < world->n_things && of_thing; t++)
        target_add(teller, kind, targets, (struct target){-1, -1, t, -1});
    for (int i = 0; i < world->n_places && kind == STORY_HEADS; i++)
        target_add(teller, kind, targets, (struct target){-1, -1, -1, world->places[i]});
    for (int g = 0; g < world->n_gifts && kind == STORY_WHO_GAVE; g++) {
        const struct story_gift *gift = &world->gifts[g];
        if (n_gifts_to(world, gift->thing, gift->to) != 1) continue; // else there would be two answers
        target_add(teller, kind, targets, (struct target){gift->to, -1, gift->thing, -1});
    }
    for (int p = 0; p < world->n_people; p++) {
        if (kind == STORY_WHERE || (kind == STORY_COUNT && world->owner[p]))
            target_add(teller, kind, targets, (struct target){p, -1, -1, -1});
        for (int q = p + 1; q < world->n_people; q++) {
            if (!world->owner[p] || !world->owner[q]) continue;
            if (kind == STORY_TOGETHER || (kind == STORY_MORE && world->count[p] != world->count[q]))
                target_add(teller, kind, targets, (struct target){p, q, -1, -1});
        }
    }
}

static void say_thing_question(struct teller *teller, const char *before, const struct target *target,
                               const char *behind) {
    teller_say(teller, before);
    teller_say_thing(teller, target->thing);
    teller_say(teller, behind);
}

static void say_person_question(struct teller *teller, const char *before, int person, const char *behind) {
    teller_say(teller, before);
    teller_say_person(teller, person);
    teller_say(teller, behind);
}

static void say_question(struct teller *teller, enum story_question_kind kind, const struct target *target) {
    const char *many = story_amounts[teller->story->world.kind].many;
    switch (kind) {
    case STORY_WHO_HAS: say_thing_question(teller, "Who has the ", target, "?"); return;
    case STORY_WHERE_THING: say_thing_question(teller, "Where is the ", target, "?"); return;
    case STORY_WHERE: say_person_question(teller, "Where is ", target->person, "?"); return;
    case STORY_WHO_GAVE:
        say_thing_question(teller, "Who gave the ", target, " to ");
        say_person_question(teller, "", target->person, "?");
        return;
    case STORY_HEADS:
        teller_say(teller, "How many people are in the ");
        teller_say(teller, story_places[target->place]);
        teller_say(teller, "?");
        return;
    case STORY_MORE:
        teller_say(teller, "Who has more ");
        teller_say(teller, many);
        say_person_question(teller, ", ", target->person, " or ");
        say_person_question(teller, "", target->other, "?");
        return;
    case STORY_COUNT:
    case STORY_TOGETHER:
        teller_say(teller, "How many ");
        teller_say(teller, many);
        if (kind == STORY_COUNT) {
            say_person_question(teller, " does ", target->person, " have?");
        } else {
            say_person_question(teller, " do ", target->person, " and ");
            say_person_question(teller, "", target->other, " have together?");
        }
        return;
    case STORY_KINDS: return;
    }
}

static int heads(const struct story_world *world, int place) {
    int n = 0;
    for (int p = 0; p < world->n_people; p++) n += world->place[p] == place;
    return n;
}

static int giver(const struct story_world *world, int thing, int to) {
    for (int g = 0; g < world->n_gifts; g++)
        if (world->gifts[g].thing == thing && world->gifts[g].to == to) return world->gifts[g].from;
    REQUIRE(false, "nobody gave it");
}

static void say_answer(struct teller *teller, enum story_question_kind kind, const struct target *target) {
    const struct story_world *world = &teller->story->world;
    int p = target->person, q = target->other, place = -1, number = -1, person = -1;
    const struct story_thing *thing = &world->things[target->thing >= 0 ? target->thing : 0];
    switch (kind) {
    case STORY_WHO_HAS: person = thing->holder; break;
    case STORY_WHERE_THING: place = thing->holder >= 0 ? world->place[thing->holder] : thing->place; break;
    case STORY_WHERE: place = world->place[p]; break;
    case STORY_COUNT: number = world->count[p]; break;
    case STORY_TOGETHER: number = world->count[p] + world->count[q]; break;
    case STORY_MORE: person = world->count[p] > world->count[q] ? p : q; break;
    case STORY_WHO_GAVE: person = giver(world, target->thing, p); break;
    case STORY_HEADS: number = heads(world, target->place); break;
    case STORY_KINDS: break;
    }
    // What has a place or a number of its own is answered in the words of the story: "Tom is in the garden", "Tom has 5 pears".
    if (place >= 0) {
        if (p >= 0) {
            teller_say_person(teller, p);
        } else {
            teller_say(teller, "The ");
            teller_say_thing(teller, target->thing);
        }
        teller_say(teller, " is in the ");
        teller_say(teller, story_places[place]);
    } else if (kind == STORY_COUNT) {
        teller_say_person(teller, p);
        teller_say(teller, " has ");
        teller_say_amount(teller, number, false);
    } else if (number >= 0) {
        teller_say_number(teller, number);
    } else if (person >= 0) {
        teller_say_person(teller, person);
    } else {
        teller_say(teller, "Nobody");
    }
    teller_say(teller, ".");
}

static int text_length(const struct teller *teller) { return (int)(teller->at - teller->story->text); }

static void tell_question(struct teller *teller) {
    struct story *story = teller->story;
    struct targets targets[STORY_KINDS];
    int weights[STORY_KINDS];
    for (int k = 0; k < STORY_KINDS; k++) {
        targets_of(teller, (enum story_question_kind)k, &targets[k]);
        weights[k] = targets[k].n > 0 ? kind_weights[k] : 0;
    }
    enum story_question_kind kind = (enum story_question_kind)teller_choose(teller, weights, STORY_KINDS);
    struct target target = targets[kind].at[teller_choose_evenly(teller, targets[kind].n)];
    teller->asked[teller->n_asked++] = target_code(kind, target);
    // Which of the two is named first says nothing about the answer.
    if (target.other >= 0 && teller_choose_evenly(teller, 2)) {
        int swap = target.person;
        target.person = target.other;
        target.other = swap;
    }
    struct story_question *asked = &story->questions[story->n_questions++];
    *asked = (struct story_question){.kind = kind,
                                     .question = text_length(teller),
                                     .person = target.person,
                                     .other = target.other,
                                     .thing = target.thing};
    teller_say(teller, "Q: ");
    say_question(teller, kind, &target);
    teller_say(teller, "\nA:");
    asked->answer = text_length(teller);
    teller_say(teller, " ");
    say_answer(teller, kind, &target);
    asked->end = text_length(teller);
    teller_say(teller, "\n");
}

void story_tell_questions(struct teller *teller) {
    int min = teller->limits->questions_min, max = teller->limits->questions_max;
    for (int done = 0; teller_goes_on(teller, done, min, max); done++) tell_question(teller);
}
