// The story language: its probabilities, its English, its answers.
#include "tests/check.h"

#include "core/base/mem.h"
#include "data/story_teller.h"
#include "data/story_words.h"
#include "tests/story_reader.h"

static const struct story_source train = {.seed = 1, .split = STORY_TRAIN};

static void a_document_is_a_function_of_seed_split_and_number(void **state) {
    (void)state;
    struct story a, b;
    for (int64_t d = 0; d < 200; d++) {
        story_make(&train, d, &a);
        for (int other = 0; other < 4; other++) {
            struct story_source source = {.seed = other == 1 ? 2 : 1, .split = other == 2 ? STORY_TEST : STORY_TRAIN};
            story_make(&source, other == 3 ? 1000 - d : d, &b);
            bool same = a.n_bytes == b.n_bytes && memcmp(a.text, b.text, (size_t)a.n_bytes) == 0;
            assert_int_equal(same, other == 0);
            if (other == 0) assert_true(a.nats == b.nats);
        }
    }
    story_make(&train, STORY_DOCUMENTS_MAX - 1, &b);
}

// An interpreter that sees only the text finds nothing impossible or ungrammatical in it, and gives the same answers.
static void answers_follow_from_the_text(void **state) {
    (void)state;
    static struct reader reader;
    struct story story;
    for (int64_t d = 0; d < 20000; d++) {
        story_make(&train, d, &story);
        reader_read(&reader, story.text, story.n_bytes);
        assert_int_equal(reader.n_questions, story.n_questions);
        int words = 0;
        for (int i = 0; i < story.n_bytes; i++)
            words += !isspace((unsigned char)story.text[i]) && isspace((unsigned char)story.text[i + 1]);
        assert_int_equal(words, story.n_words);
        assert_in_range(words, 30, 170);
    }
}

// ---- probabilities ----

// The script for the next document of all in the order of their choices; false: that was the last.
static bool script_advance(struct story_script *script) {
    int n = script->n_made;
    for (int i = script->n_picks; i < n; i++) script->picks[i] = 0;
    while (n > 0 && script->picks[n - 1] + 1 == script->options[n - 1]) n--;
    if (n > 0) script->picks[n - 1]++;
    script->n_picks = n;
    return n > 0;
}

struct derivations {
    const struct story *target;
    int n, n_runs;
    double nats;
};

// Counts the ways to choose that give the target's text, from the choices already in the script on.
static void derive(struct story_script *script, struct derivations *found) {
    struct story_source source = {.script = script};
    const struct story *target = found->target;
    struct story story;
    story_make(&source, 0, &story);
    found->n_runs++;
    int k = script->n_picks, options = k < script->n_made ? script->options[k] : 0;
    int n = k < script->n_made ? script->text[k] : story.n_bytes;
    if (n > target->n_bytes || memcmp(story.text, target->text, (size_t)n) != 0) return;
    if (k == script->n_made) {
        if (n != target->n_bytes) return;
        found->n++;
        found->nats = story.nats;
        return;
    }
    for (int o = 0; o < options; o++) {
        script->n_picks = k + 1;
        script->picks[k] = o;
        derive(script, found);
    }
    script->n_picks = k;
}

// So -log P(text) is the sum over its choices: no second way to the same text adds to its probability.
static void choices_can_be_read_off_the_text(void **state) {
    (void)state;
    struct story story;
    static struct story_script script;
    for (int64_t d = 0; d < 20; d++) {
        story_make(&train, d, &story);
        script.n_picks = 0;
        struct derivations found = {.target = &story};
        derive(&script, &found);
        assert_int_equal(found.n, 1);
        check_near(found.nats, story.nats, 1e-12, 0);
    }
}

static const struct story_limits small = {.names = 2,
                                          .places = 2,
                                          .adjectives = 1,
                                          .nouns = 2,
                                          .kinds = 1,
                                          .weathers = 1,
                                          .times = 1,
                                          .people_max = 2,
                                          .things_max = 1,
                                          .owners_max = 2,
                                          .amount_max = 2,
                                          .events_min = 1,
                                          .events_max = 1,
                                          .questions_min = 1,
                                          .questions_max = 1};

static int compare_numbers(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t text_hash(const struct story *story) { // FNV-1a
    uint64_t hash = 0xCBF29CE484222325u;
    for (int i = 0; i < story->n_bytes; i++) hash = (hash ^ (unsigned char)story->text[i]) * 0x100000001B3u;
    return hash;
}

static int64_t n_repeated(uint64_t *hashes, int64_t n) {
    int64_t repeated = 0;
    qsort(hashes, (size_t)n, sizeof *hashes, compare_numbers);
    for (int64_t i = 1; i < n; i++) repeated += hashes[i] == hashes[i - 1];
    return repeated;
}

static void probabilities_of_a_small_language_sum_to_one(void **state) {
    (void)state;
    static struct story_script script;
    script.n_picks = 0;
    struct story_source every = {.limits = &small, .script = &script}, random = {.limits = &small, .seed = 3};
    struct story story;
    uint64_t *hashes = NULL;
    int64_t n = 0, room = 0;
    double sum = 0, entropy = 0, square = 0, mean = 0;
    do {
        story_make(&every, 0, &story);
        if (n == room) hashes = mem_resize(hashes, (size_t)(room = 2 * room + 1024), sizeof *hashes);
        hashes[n++] = text_hash(&story);
        double p = exp(-story.nats);
        sum += p;
        entropy += p * story.nats;
        square += p * story.nats * story.nats;
    } while (script_advance(&script));
    check_near(sum, 1, 1e-9, 0);
    assert_true(n > 10000);
    assert_int_equal(n_repeated(hashes, n), 0); // all documents differ
    free(hashes);
    // Random documents have that entropy on average: five standard errors, a false alarm once in 1.7 million.
    enum { SAMPLES = 20000 };
    for (int64_t d = 0; d < SAMPLES; d++) {
        story_make(&random, d, &story);
        mean += story.nats / SAMPLES;
    }
    check_near(mean, entropy, 0, 5 * sqrt((square - entropy * entropy) / SAMPLES));
}

// ---- many documents ----

// A document drawn before is drawn again with its probability: over all pairs that is n / 2 times the sum of exp(-nats), far
// below one. Two of the hashes of different texts meet with probability 3e-10.
static void no_document_occurs_twice(void **state) {
    (void)state;
    enum { SPLITS = 4, EACH = 25000 };
    uint64_t *hashes = mem_new(SPLITS * EACH, sizeof *hashes);
    struct story story;
    double again = 0;
    for (int i = 0; i < SPLITS * EACH; i++) {
        story_make(&(struct story_source){.seed = 5, .split = (enum story_split)(i / EACH)}, i % EACH, &story);
        again += exp(-story.nats) * SPLITS * EACH / 2;
        hashes[i] = text_hash(&story);
    }
    assert_true(again < 1e-6);
    assert_int_equal(n_repeated(hashes, SPLITS * EACH), 0);
    free(hashes);
}

static bool ends_in(const struct story *story, const struct story_question *question, const char *word) {
    int n = (int)strlen(word);
    return question->end - 1 - question->answer > n &&
           memcmp(story->text + question->end - 1 - n, word, (size_t)n) == 0 &&
           story->text[question->end - 2 - n] == ' ';
}

// Shares of the answers are far from what a guess without the story could use. By symmetry each name, each place and each of
// two people in a comparison is equally likely; 10 % of 1/16 of some 50,000 answers are more than five standard errors.
static void answers_are_balanced(void **state) {
    (void)state;
    int names[STORY_NAMES] = {0}, places[STORY_PLACES] = {0}, numbers[13] = {0}, n_names = 0, n_places = 0,
        n_numbers = 0;
    int first = 0, n_more = 0, nobody = 0, n_who = 0;
    struct story story;
    for (int64_t d = 0; d < 40000; d++) {
        story_make(&train, d, &story);
        for (int i = 0; i < story.n_questions; i++) {
            const struct story_question *q = &story.questions[i];
            for (int k = 0; k < STORY_NAMES; k++)
                if (ends_in(&story, q, story_names[k])) names[k]++, n_names++;
            for (int k = 0; k < STORY_PLACES; k++)
                if (ends_in(&story, q, story_places[k])) places[k]++, n_places++;
            if (q->kind == STORY_COUNT) numbers[story.world.count[q->person]]++, n_numbers++;
            n_more += q->kind == STORY_MORE;
            first += q->kind == STORY_MORE && ends_in(&story, q, story_names[story.world.people[q->person]]);
            n_who += q->kind == STORY_WHO_HAS;
            nobody += q->kind == STORY_WHO_HAS && ends_in(&story, q, "Nobody");
        }
    }
    for (int k = 0; k < STORY_NAMES; k++) check_near((double)names[k] / n_names, 1.0 / STORY_NAMES, 0.1, 0);
    for (int k = 0; k < STORY_PLACES; k++) check_near((double)places[k] / n_places, 1.0 / STORY_PLACES, 0.1, 0);
    for (int k = 0; k <= 9; k++) assert_in_range(numbers[k], n_numbers / 400, n_numbers / 4);
    check_near((double)first / n_more, 0.5, 0, 0.02);
    assert_in_range(nobody, n_who / 20, n_who / 3);
}

static void one_choice_is_right(void **state) {
    (void)state;
    int gold[STORY_CHOICES_MAX] = {0}, n_four = 0;
    struct story story;
    struct story_choices choices, again;
    for (int64_t d = 0; d < 5000; d++) {
        story_make(&train, d, &story);
        for (int i = 0; i < story.n_questions; i++) {
            const struct story_question *q = &story.questions[i];
            story_choices(&train, d, &story, i, &choices);
            story_choices(&train, d, &story, i, &again);
            assert_int_equal(choices.n, q->kind == STORY_MORE ? 2 : 4);
            assert_int_equal(choices.gold, again.gold);
            for (int k = 0; k < choices.n; k++) {
                const char *text = choices.texts[k];
                bool right =
                    (int)strlen(text) == q->end - q->answer && memcmp(text, story.text + q->answer, strlen(text)) == 0;
                assert_int_equal(right, k == choices.gold);
                assert_string_equal(text, again.texts[k]);
                for (int j = 0; j < k; j++) assert_string_not_equal(text, choices.texts[j]);
            }
            if (choices.n == 4) gold[choices.gold]++, n_four++;
        }
    }
    for (int k = 0; k < STORY_CHOICES_MAX; k++) check_near((double)gold[k] / n_four, 0.25, 0, 0.02);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_is_a_function_of_seed_split_and_number),
        cmocka_unit_test(answers_follow_from_the_text),
        cmocka_unit_test(choices_can_be_read_off_the_text),
        cmocka_unit_test(probabilities_of_a_small_language_sum_to_one),
        cmocka_unit_test(no_document_occurs_twice),
        cmocka_unit_test(answers_are_balanced),
        cmocka_unit_test(one_choice_is_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
