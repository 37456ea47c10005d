// The story itself: who is where and has what, then one to five things that happen. Every choice shows in the text at once:
//
//     beginning  weather, time; groups of people with their places; things with holders; owners of small things
//     event      kind of event, then who and what of all that is possible now, then how it is said
//
// "He" and "she" stand only for the one who was the subject of the sentence before, and only when that sentence named nobody
// else of the same sex.
#include "core/base/status.h"
#include "data/story_teller.h"
#include "data/story_words.h"

enum event { MOVE, MOVE_TOGETHER, GIVE, TAKE, LEAVE, PICK_UP, FIND, LOSE, SHARE, N_EVENTS };

static const int event_weights[N_EVENTS] = {6, 2, 4, 2, 2, 4, 4, 3, 4};

enum { TOGETHER_MAX = 4, AMOUNT_MAX = 4, PAIRS_MAX = STORY_PEOPLE_MAX * STORY_PEOPLE_MAX, NEW_PLACE_WEIGHT = 1 };

// What can happen now: pairs (who, whom) or (who, which thing).
struct pairs {
    int n;
    struct {
        int a, b;
    } at[PAIRS_MAX];
};

static void pair_add(struct pairs *pairs, int a, int b) {
    pairs->at[pairs->n].a = a;
    pairs->at[pairs->n++].b = b;
}

static int sex(const struct teller *teller, int person) { return teller->story->world.people[person] % 2; }

static int total_count(const struct story_world *world) {
    int total = 0;
    for (int p = 0; p < world->n_people; p++) total += world->count[p];
    return total;
}

// ---- sentences ----

// The start of a sentence about `person`: " Then she", " Ann".
static void begin(struct teller *teller, int person, bool connected) {
    static const char *const connectors[] = {" ", " Then ", " Later "};
    int connector = connected ? teller_choose(teller, (const int[]){6, 2, 1}, 3) : 0;
    teller_say(teller, connectors[connector]);
    bool pronoun = person == teller->subject && teller_choose_evenly(teller, 2) == 1;
    if (!pronoun)
        teller_say_person(teller, person);
    else if (connector == 0)
        teller_say(teller, sex(teller, person) ? "He" : "She");
    else
        teller_say(teller, sex(teller, person) ? "he" : "she");
}

// Whom a pronoun means after a sentence about `person` that named `other` too (-1: nobody).
static void set_subject(struct teller *teller, int person, int other) {
    teller->subject = other >= 0 && sex(teller, person) == sex(teller, other) ? -1 : person;
}

static void say_article(struct teller *teller, int thing) {
    const char *word = story_adjectives[teller->story->world.things[thing].adjective];
    teller_say(teller, *word == 'o' ? "an " : "a ");
    teller_say_thing(teller, thing);
}

static void say_place(struct teller *teller, const char *before, int place) {
    teller_say(teller, before);
    teller_say(teller, story_places[place]);
    if (teller->known[place]) return;
    struct story_world *world = &teller->story->world;
    teller->known[place] = true;
    world->places[world->n_places++] = place;
}

// ---- beginning ----

static int choose_new_name(struct teller *teller) {
    struct story_world *world = &teller->story->world;
    int weights[STORY_NAMES], n = teller->limits->names;
    for (int i = 0; i < n; i++) weights[i] = 1;
    for (int p = 0; p < world->n_people; p++) weights[world->people[p]] = 0;
    return teller_choose(teller, weights, n);
}

static int choose_new_place(struct teller *teller) {
    int weights[STORY_PLACES], n = teller->limits->places;
    for (int i = 0; i < n; i++) weights[i] = !teller->known[i];
    return teller_choose(teller, weights, n);
}

// "Ann and Ben are in the garden."
static void tell_group(struct teller *teller) {
    struct story_world *world = &teller->story->world;
    int first = world->n_people, room = teller->limits->people_max - first;
    int size = 1 + (room > 1 ? teller_choose(teller, (const int[]){3, 3, 1}, room < 3 ? room : 3) : 0);
    int people[STORY_PEOPLE_MAX];
    for (int i = 0; i < size; i++) {
        world->people[first + i] = choose_new_name(teller);
        world->n_people++;
        people[i] = first + i;
        teller_say(teller, i == 0 ? " " : i + 1 < size ? ", " : " and ");
        teller_say_person(teller, people[i]);
    }
    int place = choose_new_place(teller);
    say_place(teller, size == 1 ? " is in the " : " are in the ", place);
    teller_say(teller, ".");
    for (int i = 0; i < size; i++) world->place[people[i]] = place;
    teller->subject = size == 1 ? first : -1;
}

static void tell_thing(struct teller *teller) {
    struct story_world *world = &teller->story->world;
    int weights[STORY_PEOPLE_MAX + 1] = {2}, t = world->n_things, nouns[STORY_NOUNS];
    for (int p = 0; p < world->n_people; p++) weights[1 + p] = 3;
    struct story_thing *thing = &world->things[t];
    thing->holder = teller_choose(teller, weights, world->n_people + 1) - 1;
    if (thing->holder >= 0) {
        begin(teller, thing->holder, false);
        teller_say(teller, " has ");
    } else {
        teller_say(teller, " There is ");
    }
    thing->adjective = teller_choose_evenly(teller, teller->limits->adjectives);
    for (int i = 0; i < teller->limits->nouns; i++) nouns[i] = t == 0 || world->things[0].noun != i;
    thing->noun = teller_choose(teller, nouns, teller->limits->nouns);
    world->n_things++;
    say_article(teller, t);
    teller->subject = thing->holder;
    if (thing->holder < 0) {
        thing->place = world->places[teller_choose_evenly(teller, world->n_places)];
        say_place(teller, " in the ", thing->place);
    }
    teller_say(teller, ".");
}

static void tell_owner(struct teller *teller) {
    struct story_world *world = &teller->story->world;
    int weights[STORY_PEOPLE_MAX];
    for (int p = 0; p < world->n_people; p++) weights[p] = !world->owner[p];
    int person = teller_choose(teller, weights, world->n_people);
    begin(teller, person, false);
    world->owner[person] = 1;
    world->count[person] = teller_choose_number(teller, 1, teller->limits->amount_max);
    teller_say(teller, " has ");
    teller_say_amount(teller, world->count[person], false);
    teller_say(teller, ".");
    teller->subject = person;
}

void story_tell_beginning(struct teller *teller) {
    const struct story_limits *limits = teller->limits;
    struct story_world *world = &teller->story->world;
    teller_say(teller, "It is a ");
    teller_say(teller, story_weathers[teller_choose_evenly(teller, limits->weathers)]);
    teller_say(teller, " ");
    teller_say(teller, story_times[teller_choose_evenly(teller, limits->times)]);
    teller_say(teller, ".");
    do {
        tell_group(teller);
    } while (world->n_places < limits->places && teller_goes_on(teller, world->n_people, 2, limits->people_max));
    do {
        tell_thing(teller);
    } while (teller_goes_on(teller, world->n_things, 1, limits->things_max));
    world->kind = teller_choose_evenly(teller, limits->kinds);
    int owners = 0;
    do {
        tell_owner(teller);
    } while (teller_goes_on(teller, ++owners, 1, limits->owners_max));
}

// ---- events ----

static bool together(const struct story_world *world, int p, int q) {
    return p != q && world->place[p] == world->place[q];
}

static void event_pairs(const struct story_world *world, enum event event, struct pairs *pairs) {
    int n = world->n_people;
    bool full = total_count(world) >= STORY_COUNT_MAX;
    pairs->n = 0;
    for (int a = 0; a < n; a++) {
        if (event == MOVE) pair_add(pairs, a, -1);
        if (event == FIND && !full) pair_add(pairs, a, -1);
        if (event == LOSE && world->count[a] > 0) pair_add(pairs, a, -1);
        for (int b = 0; b < n; b++) {
            if (!together(world, a, b)) continue;
            if (event == MOVE_TOGETHER) pair_add(pairs, a, b);
            if (event == SHARE && world->count[a] > 0) pair_add(pairs, a, b);
        }
        for (int t = 0; t < world->n_things; t++) {
            const struct story_thing *thing = &world->things[t];
            if (event == PICK_UP && thing->holder < 0 && thing->place == world->place[a]) pair_add(pairs, a, t);
            if (event == LEAVE && thing->holder == a) pair_add(pairs, a, t);
        }
    }
    // Of a thing: who gets it from the one who has it.
    for (int t = 0; t < world->n_things && (event == GIVE || event == TAKE); t++)
        for (int b = 0; b < n; b++)
            if (world->things[t].holder >= 0 && together(world, world->things[t].holder, b)) pair_add(pairs, b, t);
}

// "Ben is there too." after somebody came to `place`.
static void tell_others_there(struct teller *teller, int place, const int *came, int n_came) {
    const struct story_world *world = &teller->story->world;
    int others[STORY_PEOPLE_MAX], n = 0;
    for (int p = 0; p < world->n_people; p++)
        if (world->place[p] == place && p != came[0] && (n_came == 1 || p != came[1])) others[n++] = p;
    if (n == 0 || teller_choose(teller, (const int[]){2, 1}, 2) == 0) return;
    teller_say(teller, " ");
    teller_say_people(teller, others, n);
    teller_say(teller, n == 1 ? " is there too." : " are there too.");
    teller->subject = -1;
}

static void tell_move(struct teller *teller, const int *people, int n) {
    static const char *const verbs[2][3] = {{" goes", " walks", " runs"}, {" go", " walk", " run"}};
    struct story_world *world = &teller->story->world;
    int weights[STORY_PLACES], sum = 0, here = world->place[people[0]];
    for (int i = 0; i < teller->limits->places; i++) {
        bool room = world->n_places < STORY_PLACES_MAX;
        weights[i] = i == here ? 0 : teller->known[i] ? 8 : room ? NEW_PLACE_WEIGHT : 0;
        sum += weights[i];
    }
    REQUIRE(sum > 0, "there must be two places");
    if (n == 1) {
        begin(teller, people[0], true);
    } else {
        teller_say(teller, teller_choose(teller, (const int[]){3, 1}, 2) ? " Then " : " ");
        teller_say_people(teller, people, n);
    }
    teller_say(teller, verbs[n > 1][teller_choose(teller, (const int[]){3, 1, 1}, 3)]);
    int place = teller_choose(teller, weights, teller->limits->places);
    say_place(teller, " to the ", place);
    teller_say(teller, ".");
    for (int i = 0; i < n; i++) world->place[people[i]] = place;
    teller->subject = n == 1 ? people[0] : -1;
    tell_others_there(teller, place, people, n);
}

static void tell_give(struct teller *teller, int t, int to) {
    struct story_world *world = &teller->story->world;
    int from = world->things[t].holder;
    begin(teller, from, true);
    teller_say(teller, " gives ");
    if (teller_choose_evenly(teller, 2) == 0) {
        teller_say(teller, "the ");
        teller_say_thing(teller, t);
        teller_say(teller, " to ");
        teller_say_person(teller, to);
    } else {
        teller_say_person(teller, to);
        teller_say(teller, " the ");
        teller_say_thing(teller, t);
    }
    teller_say(teller, ".");
    world->things[t].holder = to;
    world->gifts[world->n_gifts++] = (struct story_gift){.thing = t, .from = from, .to = to};
    set_subject(teller, from, to);
}

static void tell_take(struct teller *teller, int person, int t) {
    struct story_thing *thing = &teller->story->world.things[t];
    begin(teller, person, true);
    teller_say(teller, " takes the ");
    teller_say_thing(teller, t);
    teller_say(teller, " from ");
    teller_say_person(teller, thing->holder);
    teller_say(teller, ".");
    set_subject(teller, person, thing->holder);
    thing->holder = person;
}

static void tell_leave(struct teller *teller, int person, int t) {
    struct story_world *world = &teller->story->world;
    begin(teller, person, true);
    teller_say(teller, " leaves the ");
    teller_say_thing(teller, t);
    say_place(teller, " in the ", world->place[person]);
    teller_say(teller, ".");
    world->things[t].holder = -1;
    world->things[t].place = world->place[person];
    set_subject(teller, person, -1);
}

static void tell_pick_up(struct teller *teller, int person, int t) {
    begin(teller, person, true);
    teller_say(teller, " picks up the ");
    teller_say_thing(teller, t);
    teller_say(teller, ".");
    teller->story->world.things[t].holder = person;
    set_subject(teller, person, -1);
}

// "Now Ann has 5 pears." of one of these people, or nothing.
static void tell_count(struct teller *teller, const int *people, int n) {
    int which = teller_choose(teller, (const int[]){1, 4 / n, 4 / n}, 1 + n) - 1;
    if (which < 0) return;
    teller_say(teller, " Now ");
    teller_say_person(teller, people[which]);
    teller_say(teller, " has ");
    teller_say_amount(teller, teller->story->world.count[people[which]], false);
    teller_say(teller, ".");
    teller->subject = people[which];
}

static void tell_find(struct teller *teller, int person) {
    struct story_world *world = &teller->story->world;
    int room = STORY_COUNT_MAX - total_count(world);
    bool more = world->count[person] > 0;
    begin(teller, person, true);
    teller_say(teller, teller_choose(teller, (const int[]){2, 1}, 2) ? " gets " : " finds ");
    int n = teller_choose_number(teller, 1, room < AMOUNT_MAX ? room : AMOUNT_MAX);
    teller_say_amount(teller, n, more);
    teller_say(teller, ".");
    world->count[person] += n;
    world->owner[person] = 1;
    set_subject(teller, person, -1);
    if (more) tell_count(teller, &person, 1);
}

static int choose_amount_of(struct teller *teller, int person) {
    int has = teller->story->world.count[person];
    return teller_choose_number(teller, 1, has < AMOUNT_MAX ? has : AMOUNT_MAX);
}

static void tell_lose(struct teller *teller, int person) {
    struct story_world *world = &teller->story->world;
    begin(teller, person, true);
    bool eats = story_amounts[world->kind].edible && teller_choose(teller, (const int[]){1, 2}, 2);
    teller_say(teller, eats ? " eats " : " loses ");
    int n = choose_amount_of(teller, person);
    teller_say_amount(teller, n, false);
    teller_say(teller, ".");
    world->count[person] -= n;
    set_subject(teller, person, -1);
    tell_count(teller, &person, 1);
}

static void tell_share(struct teller *teller, int from, int to) {
    struct story_world *world = &teller->story->world;
    begin(teller, from, true);
    teller_say(teller, " gives ");
    bool turned = teller_choose_evenly(teller, 2) == 1;
    if (turned) {
        teller_say_person(teller, to);
        teller_say(teller, " ");
    }
    int n = choose_amount_of(teller, from);
    teller_say_amount(teller, n, false);
    if (!turned) {
        teller_say(teller, " to ");
        teller_say_person(teller, to);
    }
    teller_say(teller, ".");
    world->count[from] -= n;
    world->count[to] += n;
    world->owner[to] = 1;
    set_subject(teller, from, to);
    tell_count(teller, (const int[]){from, to}, 2);
}

static void tell_event(struct teller *teller) {
    const struct story_world *world = &teller->story->world;
    struct pairs pairs[N_EVENTS];
    int weights[N_EVENTS];
    for (int e = 0; e < N_EVENTS; e++) {
        event_pairs(world, (enum event)e, &pairs[e]);
        weights[e] = pairs[e].n > 0 ? event_weights[e] : 0;
    }
    enum event event = (enum event)teller_choose(teller, weights, N_EVENTS);
    int which = teller_choose_evenly(teller, pairs[event].n);
    int a = pairs[event].at[which].a, b = pairs[event].at[which].b;
    switch (event) {
    case MOVE: tell_move(teller, (const int[]){a}, 1); break;
    case MOVE_TOGETHER: tell_move(teller, (const int[]){a, b}, 2); break;
    case GIVE: tell_give(teller, b, a); break;
    case TAKE: tell_take(teller, a, b); break;
    case LEAVE: tell_leave(teller, a, b); break;
    case PICK_UP: tell_pick_up(teller, a, b); break;
    case FIND: tell_find(teller, a); break;
    case LOSE: tell_lose(teller, a); break;
    case SHARE: tell_share(teller, a, b); break;
    case N_EVENTS: break;
    }
}

void story_tell_events(struct teller *teller) {
    for (int done = 0; teller_goes_on(teller, done, teller->limits->events_min, teller->limits->events_max); done++)
        tell_event(teller);
}
