// What the files of the tokenizer share among themselves; users include data/tokenizer.h.
//
//   tokenizer.c           life of a tokenizer, small questions
//   tokenizer_load.c      JSON of normalizer, pre_tokenizer, post_processor, decoder
//   tokenizer_model.c     JSON of vocabulary and merges; their look-up tables
//   tokenizer_added.c     added tokens: JSON, and finding them in a text
//   tokenizer_normal.c    normalizers
//   tokenizer_pattern.c   regular expressions in Oniguruma's dialect through PCRE2
//   tokenizer_unicode.c   characters that PCRE2 does not know yet
//   tokenizer_encode.c    text -> pieces -> words
//   tokenizer_bpe.c       word -> tokens
//   tokenizer_decode.c    tokens -> text
#ifndef DQ_DATA_TOKENIZER_PARTS_H
#define DQ_DATA_TOKENIZER_PARTS_H

#include "data/buffer.h"
#include "data/tokenizer.h"

#include <jansson.h>
#include <stddef.h>

enum { TOKEN_IDS_MAX = 1 << 24 }; // far above any vocabulary; keeps tables by id small whatever the file says
enum { STEPS_MAX = 16 };          // normalizer, pre_tokenizer or decoder steps

struct text {
    char *bytes; // owned
    int64_t n;
};

// ---- model

struct token_text {
    int64_t at; // in vocab.texts
    int32_t n;  // -1: no token has this id
};

struct vocab {
    char *texts;
    struct token_text *tokens; // [n_ids]
    int32_t n_ids, n_tokens;   // largest id + 1; how many there are
    int32_t *table;            // [table_mask + 1] ids by hash of the text, -1 = free
    uint32_t table_mask;
};

struct merge {
    int32_t left, right, made;
};

struct merge_slot {
    uint64_t pair; // left << 32 | right; UINT64_MAX = free
    uint32_t rank;
};

struct bpe {
    struct vocab vocab;
    struct merge *merges; // [n_merges] by rank
    uint32_t n_merges;
    struct merge_slot *slots; // [slot_mask + 1]
    uint32_t slot_mask;
    int32_t *char_ids;     // [0x10000] id of the token that is this one character, or -1
    int32_t byte_ids[256]; // id of "<0x00>" … for byte_fallback, or -1
    bool byte_fallback, fuse_unk, ignore_merges;
    bool bytes_complete; // byte_fallback, and all 256 are there
    char *unk_token;     // NULL: unknown characters vanish
    int32_t unk_id;      // -1: unk_token is not in the vocabulary

    // Where a word can be cut without changing its tokens: between characters x, y such that no merge joins a token
    // that ends in x with one that begins with y. seams holds the pairs (x << 32 | y) where a merge may.
    bool cuttable;
    uint64_t *seams; // [seam_mask + 1], UINT64_MAX = free
    uint32_t seam_mask;
};

uint64_t text_hash(const char *bytes, int64_t n);
int32_t vocab_find(const struct vocab *vocab, const char *bytes, int64_t n); // id or -1
bool merge_find(const struct bpe *bpe, int32_t left, int32_t right, uint32_t *rank);
bool seam_find(const struct bpe *bpe, uint32_t before, uint32_t after);
int32_t char_find(const struct bpe *bpe, const char *bytes, int length); // id of a one-character token, or -1
enum status bpe_load(struct bpe *bpe, const json_t *model, const char *where);
void bpe_clear(struct bpe *bpe);

// ---- patterns

struct pattern;
struct pattern_scratch; // what matching needs; one per encoding

// `where` names the file. STATUS_UNSUPPORTED: a construct whose meaning is not the same in PCRE2.
enum status pattern_new(const char *source, const char *where, struct pattern **out);
void pattern_free(struct pattern *pattern);
struct pattern_scratch *pattern_scratch_new(void);
void pattern_scratch_free(struct pattern_scratch *scratch);

// The first match in text[from, n): its bounds, or *start = -1.
enum status pattern_find(const struct pattern *pattern, struct pattern_scratch *scratch, const char *text, int64_t n,
                         int64_t from, int64_t *start, int64_t *end);

// For a general category of PCRE2's, ranges of the characters it is too old to know; NULL for other properties.
const char *unicode_additions(const char *property, int length);

extern const char pattern_gpt2[];  // what ByteLevel with use_regex splits by
extern const char pattern_word[];  // one word character, \w of the Rust library that looks for added tokens
extern const char pattern_digit[]; // one number character, for Digits

// ---- normalizer and pre_tokenizer

struct normal_step {
    struct text from; // empty: `to` is put in front of every text that is not empty
    struct text to;
};

enum split_behavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_PREVIOUS, SPLIT_NEXT, SPLIT_CONTIGUOUS };

enum pre_kind { PRE_SPLIT, PRE_METASPACE, PRE_PREFIX_SPACE };
enum prepend_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct pre_step {
    enum pre_kind kind;
    struct pattern *pattern; // split: by this, or by `literal` when NULL
    struct text literal;     // split; metaspace: the replacement
    enum split_behavior behavior;
    bool invert;
    enum prepend_scheme scheme;
};

// ---- decoder

enum decode_kind {
    DECODE_BYTE_LEVEL,
    DECODE_REPLACE,
    DECODE_BYTE_FALLBACK,
    DECODE_FUSE,
    DECODE_STRIP,
    DECODE_METASPACE
};

struct decode_step {
    enum decode_kind kind;
    struct text from, to; // replace; strip and metaspace: `from` is the one character
    int64_t start, stop;  // strip: at most so many characters
    bool drop_first;      // metaspace: not " " but nothing in the first token
};

// ---- added tokens

struct added_token {
    struct text content;
    struct text match; // what is looked for: the content, normalized where `normalized` says so
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    bool skipped; // by skip_special
};

struct added_set {
    const struct added_token **sorted; // [n] by bytes of `match`
    int64_t n;
    bool begins[256]; // some match begins with this byte
};

struct added {
    struct added_token *tokens; // [n]
    int64_t n;
    struct added_set raw, normalized; // looked for before and after normalizing
    struct pattern *word;             // NULL unless a token has single_word
};

// A stretch of text that is an added token (token != NULL) or has none.
struct added_span {
    const struct added_token *token;
    int64_t start, end;
};

// The next stretch from *at on, which moves behind it; false at the end. *at and *pending begin as 0 and {0}.
struct added_scan {
    const struct added *added;
    const struct added_set *set;
    struct pattern_scratch *scratch;
    const char *text;
    int64_t n, search, done; // where to look on; up to where spans were given
    struct added_span pending;
};
enum status added_next(struct added_scan *scan, struct added_span *span, bool *found);

struct tokenizer {
    char *name;
    struct bpe bpe;
    struct added added;
    int32_t *added_by_id; // [vocab_size] index of an added token, or -1
    int32_t vocab_size;
    struct normal_step normal[STEPS_MAX];
    int n_normal;
    struct pre_step pre[STEPS_MAX];
    int n_pre;
    bool byte_level;             // words are spelled in the alphabet of ByteLevel
    struct buffer before, after; // int32_t: tokens that the post_processor adds
    bool has_decoder;
    struct decode_step decode[STEPS_MAX];
    int n_decode;
};

// Needs the model and the normalizer.
enum status added_load(struct tokenizer *tokenizer, const json_t *root);
void added_clear(struct added *added);

enum status normalizer_load(struct tokenizer *tokenizer, const json_t *root);
enum status pre_tokenizer_load(struct tokenizer *tokenizer, const json_t *root);
enum status post_processor_load(struct tokenizer *tokenizer, const json_t *root); // needs added tokens
enum status decoder_load(struct tokenizer *tokenizer, const json_t *root);

// *out and *n are the text itself when there is nothing to do, else what lies in `work`.
enum status normalize(const struct tokenizer *tokenizer, const char *text, int64_t n, struct buffer work[2],
                      const char **out, int64_t *n_out);

// Appends `text` with every `from` replaced by `to`.
enum status text_replace(struct buffer *out, const char *text, int64_t n, struct text from, struct text to);

// The character that stands for a byte in the ByteLevel alphabet, and back (-1: none).
uint32_t byte_level_point(unsigned char byte);
int byte_level_byte(uint32_t point);

// ---- merging

struct word_work {
    struct buffer symbols, heap;
};

// Appends the tokens of one word (UTF-8, not empty) to `tokens` (int32_t).
enum status word_encode(const struct bpe *bpe, const char *where, const char *word, int64_t n, struct word_work *work,
                        struct buffer *tokens);
void word_work_free(struct word_work *work);

#endif
