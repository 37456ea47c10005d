#include "data/story_words.h"

const char *const story_names[STORY_NAMES] = {"Ann",  "Ben", "Eva", "Dan",  "Kate", "Jack", "Lily", "Leo",
                                              "Lucy", "Max", "Mia", "Paul", "Rosa", "Sam",  "Sue",  "Tom"};

const char *const story_places[STORY_PLACES] = {"kitchen", "garden",  "park", "barn",   "shop",
                                                "school",  "library", "hall", "cellar", "yard"};

const char *const story_adjectives[STORY_ADJECTIVES] = {"red", "old",    "blue",  "green",
                                                        "new", "orange", "small", "white"};

const char *const story_nouns[STORY_NOUNS] = {"ball", "hat",  "key", "lamp", "book",  "kite",
                                              "cup",  "drum", "bag", "coat", "spoon", "umbrella"};

const struct story_amount story_amounts[STORY_AMOUNTS] = {
    {"apple", "apples", 1},   {"coin", "coins", 0},    {"cherry", "cherries", 1}, {"shell", "shells", 0},
    {"peach", "peaches", 1},  {"leaf", "leaves", 0},   {"nut", "nuts", 1},        {"stone", "stones", 0},
    {"cookie", "cookies", 1}, {"brush", "brushes", 0}, {"pear", "pears", 1},      {"stamp", "stamps", 0},
};

const char *const story_weathers[STORY_WEATHERS] = {"cold", "warm", "sunny", "rainy", "windy", "quiet", "fine", "grey"};

const char *const story_times[STORY_TIMES] = {"morning", "afternoon", "evening", "day"};
