#!/usr/bin/env python3
"""Small tokenizers and what Hugging Face `tokenizers` makes of many strings with them.

Made with Python 3.11, tokenizers 0.23.3, sentencepiece 0.2.3 (for --shared).

    python tests/golden/make_tokenizers.py                      writes tests/golden/tokenizers/
    python tests/golden/make_tokenizers.py --shared ../shared   also tokenizers/shared.txt, of files that are not here

strings.txt  one string per line; backslash and control bytes are \\xHH
NAME.json    the tokenizer
NAME.txt     line i, for string i: a hash, and for the first strings also the tokens without special ones;
             then N_DECODED lines "hash" for lists of random ids (see random_ids)
The hash is 64-bit FNV-1a over: tokens without special ones, then with, each as n and the tokens in 4 bytes, little
endian; then the decoded text of the latter without and with skip_special_tokens, each with its length in 4 bytes.
"""
import argparse
import json
import os
import random
import struct

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers  # noqa: E402

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizers")
N_STRINGS, N_SHOWN, N_DECODED = 2300, 120, 200
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")

WORDS = """the of and to in a is that for it as was with be by on not he his but at are this have from or had an they
which one you were all her she there would their we him been has when who will no more if out so up said what its about
than into them can only other time new some could these two may first then do any like my now over such our man me even
most made after also did many off before must well back through years much where your way down should because long
quantization rounding gradient discrepancy ſtreſs naïve café Straße ﬁn ŒUVRE Ǆ""".split()
SCRIPTS = ["Привет мир это тест", "Ελληνικά γράμματα", "שלום עולם", "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया १२३", "你好世界", "こんにちは世界",
           "カタカナ", "안녕하세요", "ไทยสวัสดี", "ქართული", "አማርኛ", "Հայերեն", "বাংলা", "தமிழ்", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "𐍈𐌰𐌹", "𒀀𒁀"]
EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☃", "🧑🏿‍🚀", "1️⃣", "🫠", "👩‍❤️‍💋‍👨"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", " \n", "\n ", "\u00a0", "\u0085", "\u180e", "\u2003", "\u2028", "\u2029",
          "\u202f", "\u205f", "\u3000", "\u1680", "\x0b", "\x0c", "\u200b", "\ufeff", "\u2060"]
PUNCT = list(".,;:!?-_()[]{}<>/\\|@#$%^&*+=~`\"'") + ["...", "--", "''", "→", "«»", "„“", "。", "、", "—", "€", "£", "©", "½", "²", "Ⅷ", "①"]
MARKS = ["e\u0301", "o\u0308\u0323", "a\u0300\u0301\u0302", "\u0301", "n\u0303", "ก\u0e49", "\u05b8", "\u200d", "\u200c", "\ufe0f"]
CONTROL = [chr(c) for c in range(0, 32)] + ["\x7f", "\x80", "\x9f", "\xad"]
CONTRACTIONS = ["'s", "'S", "'ſ", "'t", "'T", "'re", "'RE", "'rE", "'ve", "'VE", "'m", "'M", "'ll", "'LL", "'lL", "'d", "'D", "’s", "'x",
                "don't", "DON'T", "I'm", "we'Ll", "they'RE", "it'ſ", "'ſs", "'st", "''s"]
RARE = ["\U0010ffff", "\ufffd", "\uffff", "\ue000", "\U000e0001", "\U000f0000", "ƛ", "ǅ", "ʰ", "ª", "㋀", "㊿", "٣", "௧", "𝟙𝟚", "〇", "ⅻ",
        "\u1c89\u1c8a", "\ua7cb", "\U000105c0", "\U00010d40\U00010d41", "\U00016d40", "\U0001e4d0\U0001e4f0", "\U0002ebf0", "\U00031350",
        "\U0001d2c0", "\U000116d0", "\U00011f02", "\u0cf3", "\u0897"]
SPECIAL = ["<s>", "</s>", "<unk>", "<|end|>", "<|user|>", "<tool>", "[WORD]", "pad word", "<|e", "<|", "new token", "▁x", "<0x41>", "<0xC3>",
           "cat", "cats", "ZZ", "<|end|>ing", "<s", "Ωmega"]


def numbers(r):
    return "".join(r.choice("0123456789") for _ in range(r.choice([1, 2, 3, 4, 5, 7, 12])))


def atom(r):
    kind = r.random()
    if kind < 0.30: return r.choice(WORDS)
    if kind < 0.36: return r.choice(WORDS).upper() if r.random() < 0.5 else r.choice(WORDS).title()
    if kind < 0.48: return r.choice(SPACES) * r.choice([1, 1, 1, 2, 3, 7])
    if kind < 0.56: return numbers(r)
    if kind < 0.64: return r.choice(PUNCT) * r.choice([1, 1, 2, 5])
    if kind < 0.70: return r.choice(SCRIPTS)
    if kind < 0.75: return r.choice(EMOJI)
    if kind < 0.79: return r.choice(MARKS)
    if kind < 0.82: return r.choice(CONTROL)
    if kind < 0.87: return r.choice(CONTRACTIONS)
    if kind < 0.90: return r.choice(RARE)
    if kind < 0.91: return "".join(chr(r.choice([r.randrange(0x20, 0x3000), r.randrange(0xe000, 0x11000), r.randrange(0x11000, 0x30000)]))
                                   for _ in range(3))
    return r.choice(SPECIAL)


def make_strings():
    r = random.Random(20240)
    fixed = ["", " ", "  ", "▁", "▁▁", " ▁ ", "▁a", "a▁", "\n", "\n\n\n", "\t\t", " " * 100, "\n" * 100, "\t" * 65, "\r\n" * 33, " a" * 50,
             "a" * 3000, "ab" * 700, "é" * 500, "世" * 300, "😀" * 80, "0" * 301, "1234567890" * 20, "▁" * 130, "." * 200, "the" * 400,
             "the " * 300, "\u180e" * 5 + "a\u180e b", "a\u0085b\u0085\u0085c", "a\u00a0\u00a0b", " \u180e ", "\u180e\n", "\x00", "a\x00b",
             "'" * 40, "it's IT'S it'ſ IT'ſ", "<s>", "<s><s></s>", " <s> ", "a <tool> b", "a<tool>b", "<tool> <tool>", "  <tool>  <tool>  ",
             "<|user|>  hello", "<|user|>\n\n x", "x [WORD] y", "x[WORD]y", "[WORD]", "1[WORD]", "[WORD]é", "_[WORD]", "-[WORD]-", "é[WORD]",
             "\u0301[WORD]", "\u200d[WORD]", "[WORD][WORD]", "cats cat scat catss", "new token", "a new token b", "anew tokenb", "pad wordpad word",
             "ZZ ZZ", "zZZz", "<|end|><|end|>ing", "<unk>", "<0x41>", "<0x0A>", "Ωmega Ωmegas", "</s> </s>  </s>", "<tool><|user|> <tool>",
             "\u3000<tool>\u3000x", "\u0085<tool>\u180e<|user|>\u180ex", "x<|user|>\u0085\u00a0\u3000y"]
    fixed += SCRIPTS + EMOJI + SPACES + PUNCT + MARKS + CONTROL + CONTRACTIONS + RARE + SPECIAL
    fixed += ["a" + s + "b" for s in SPACES + MARKS + CONTROL] + [" " + s + " " for s in SPECIAL + CONTRACTIONS]
    while len(fixed) < N_STRINGS:
        fixed.append("".join(atom(r) + (" " if r.random() < 0.4 else "") for _ in range(r.randrange(1, 14))))
    return [s.encode("utf-8", "surrogatepass").decode("utf-8", "ignore") for s in fixed]


def training_text(seed):
    r = random.Random(seed)
    words = WORDS + [w.title() for w in WORDS] + SCRIPTS + EMOJI
    for _ in range(3000):
        yield " ".join(r.choice(words) for _ in range(12)) + r.choice([".", "!", "\n", "  \n", " 123 4567", " it's we'll"])


ADDED = [AddedToken("<|end|>", special=True, normalized=False), AddedToken("<|user|>", rstrip=True, special=True, normalized=False),
         AddedToken("<tool>", lstrip=True, normalized=False), AddedToken("[WORD]", single_word=True, normalized=False),
         AddedToken("cats", single_word=True), AddedToken("cat"), AddedToken("new token", normalized=True),
         AddedToken("pad word", normalized=True, lstrip=True, rstrip=True), AddedToken("ZZ", normalized=False, special=True, lstrip=True, rstrip=True),
         AddedToken("Ωmega", normalized=True, special=True), AddedToken("<|end|>ing", normalized=False)]


def byte_level_model():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.train_from_iterator(training_text(1), trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    return json.loads(t.to_str())["model"]


def metaspace_model(alphabet):
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    t.train_from_iterator(training_text(2), trainers.BpeTrainer(
        vocab_size=900, limit_alphabet=alphabet, show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]))
    model = json.loads(t.to_str())["model"]
    # Merges across words and of runs, as the real vocabularies have them.
    def merge(a, b):
        if a + b not in model["vocab"]: model["vocab"][a + b] = len(model["vocab"])
        model["merges"].append([a, b])
    for _ in range(1): merge("▁", "▁"); merge("▁▁", "▁▁"); merge("▁▁▁▁", "▁▁▁▁"); merge("▁▁", "▁"); merge("▁the", "▁")
    return model


def thinned(model):
    """Tokens that no merge makes any more: found by ignore_merges only."""
    r = random.Random(5)
    return dict(model, merges=[m for m in model["merges"] if r.random() < 0.85])


def as_lines(model):
    return dict(model, merges=["#version: 0.2"] + [" ".join(m) for m in model["merges"]])


def template(before, after, ids):
    special = lambda t: {"SpecialToken": {"id": t, "type_id": 0}}
    single = [special(t) for t in before] + [{"Sequence": {"id": "A", "type_id": 0}}] + [special(t) for t in after]
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in before + after}}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SPLIT = {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}
LLAMA2_NORMAL = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                     {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
LLAMA2_DECODE = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                                                  {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


def sequence(kind, *steps):
    return {"type": "Sequence", kind: list(steps)}


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def build(model, added=(), post=None, **parts):
    """The json of a tokenizer with these tokens added; `post` gets their ids."""
    t = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
         "post_processor": None, "decoder": None, "model": model}
    t.update(parts)
    tok = Tokenizer.from_str(json.dumps(t))
    tok.add_tokens(list(added))
    full = json.loads(tok.to_str())
    ids = {a["content"]: a["id"] for a in full["added_tokens"]} | {k: v for k, v in model["vocab"].items() if k in ("<s>", "</s>")}
    return dict(t, added_tokens=full["added_tokens"], post_processor=post(ids) if post else None)


def make_tokenizers():
    b, m, few = byte_level_model(), metaspace_model(400), metaspace_model(40)
    begin = [AddedToken("<s>", special=True, normalized=False), AddedToken("</s>", special=True, normalized=False)]
    byte_post = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    bos = lambda ids: template(["<s>"], [], ids)
    both = lambda ids: sequence("processors", template([], ["</s>"], ids), template(["<s>"], [], ids))
    unk = [AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")]
    no_bytes = {k: v for k, v in few["vocab"].items() if not k.startswith("<0x") or int(k[3:5], 16) % 3 > 0}
    plain = dict(few, vocab={k: v for k, v in few["vocab"].items() if not k.startswith("<0x")}, byte_fallback=False)
    full = sequence("pretokenizers", SPLIT, BYTE_LEVEL)
    odd = sequence("pretokenizers", split({"String": "the"}, "MergedWithNext"), split({"Regex": r"\s+"}, "Removed"),
                   split({"Regex": r"[^\p{L}\S]|\d|$|(?<=o)"}, "MergedWithPrevious"), {"type": "Digits", "individual_digits": False},
                   split({"Regex": r"\p{L}+|\P{N}"}, "Contiguous", True), {"type": "Digits", "individual_digits": True}, BYTE_LEVEL)
    return {
        "llama3": build(dict(thinned(b), ignore_merges=True), begin + ADDED, lambda ids: sequence("processors", byte_post, bos(ids)),
                        pre_tokenizer=full, decoder=BYTE_LEVEL),
        "llama3_merges": build(as_lines(thinned(b)), begin + ADDED, bos, pre_tokenizer=full, decoder=BYTE_LEVEL),
        "gpt2": build(as_lines(b), [AddedToken("<|end|>", special=True, normalized=False)], pre_tokenizer=dict(BYTE_LEVEL, use_regex=True),
                      decoder=BYTE_LEVEL),
        "gpt2_prefix": build(b, begin + ADDED, lambda ids: byte_post, pre_tokenizer=dict(BYTE_LEVEL, use_regex=True, add_prefix_space=True),
                             decoder=BYTE_LEVEL),
        "splits": build(b, ADDED[:3], pre_tokenizer=odd, decoder=BYTE_LEVEL),
        "llama2": build(m, unk + ADDED, bos, normalizer=LLAMA2_NORMAL, decoder=LLAMA2_DECODE),
        "metaspace_first": build(m, unk + ADDED, both, pre_tokenizer=metaspace("first", False), decoder=LLAMA2_DECODE),
        "metaspace_first_split": build(m, unk + ADDED, bos, pre_tokenizer=metaspace("first", True), decoder=metaspace("first", True)),
        "metaspace_always": build(as_lines(m), unk + ADDED, bos, pre_tokenizer=metaspace("always", True), decoder=metaspace("always", True)),
        "metaspace_never": build(dict(m, ignore_merges=True), unk + ADDED, bos, pre_tokenizer=metaspace("never", False),
                                 decoder=metaspace("never", False)),
        "some_bytes": build(dict(few, vocab={k: i for i, k in enumerate(sorted(no_bytes, key=no_bytes.get))}), unk[:1] + ADDED[:4],
                            normalizer=LLAMA2_NORMAL, decoder=LLAMA2_DECODE),
        "unknown": build(dict(plain, fuse_unk=False, vocab={k: i for i, k in enumerate(sorted(plain["vocab"], key=plain["vocab"].get))}),
                         unk, pre_tokenizer=metaspace("always", True)),
        "vanishing": build(dict(plain, unk_token=None, vocab={k: i for i, k in enumerate(sorted(plain["vocab"], key=plain["vocab"].get))}),
                           ADDED[3:8], normalizer={"type": "Replace", "pattern": {"String": "  "}, "content": ""},
                           decoder=sequence("decoders", {"type": "Replace", "pattern": {"String": "an"}, "content": ""},
                                            {"type": "Strip", "content": "▁", "start": 2, "stop": 0}, metaspace("always", True))),
    }


def fnv(h, data):
    for byte in data:
        h = ((h ^ byte) * 0x100000001b3) & 0xffffffffffffffff
    return h


def packed(ids):
    return struct.pack("<%dI" % (len(ids) + 1), len(ids), *ids)


def text_packed(text):
    data = text.encode("utf-8")
    return struct.pack("<I", len(data)) + data


def random_ids(vocab_size, which):
    """A linear congruential generator that the C test repeats; some ids lie beyond the vocabulary."""
    x, ids = which, []
    for _ in range(which % 24):
        x = (x * 6364136223846793005 + 1442695040888963407) & 0xffffffffffffffff
        ids.append((x >> 33) % (vocab_size + 4))
    return ids


def expected(tok, strings):
    lines = []
    for i, s in enumerate(strings):
        plain, special = tok.encode(s, add_special_tokens=False).ids, tok.encode(s).ids
        h = fnv(0xcbf29ce484222325, packed(plain) + packed(special))
        h = fnv(h, text_packed(tok.decode(special, skip_special_tokens=False)) + text_packed(tok.decode(special)))
        lines.append("%016x%s" % (h, "".join(" %d" % t for t in plain) if i < N_SHOWN and len(plain) < 100 else ""))
    size = max(tok.get_vocab(with_added_tokens=True).values()) + 1
    for i in range(N_DECODED):
        ids = random_ids(size, i)
        h = fnv(0xcbf29ce484222325, text_packed(tok.decode(ids, skip_special_tokens=False)) + text_packed(tok.decode(ids)))
        lines.append("%016x" % h)
    return lines


def escaped(s):
    return "".join("\\x%02x" % ord(c) if ord(c) < 32 or c in "\\\x7f" else c for c in s)


def write(name, text):
    with open(os.path.join(OUT, name), "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def gpt2_tokenizer(folder):
    lines = open(os.path.join(folder, "merges.txt"), encoding="utf-8").read().split("\n")
    vocab = json.load(open(os.path.join(folder, "vocab.json"), encoding="utf-8"))
    model = {"type": "BPE", "vocab": vocab, "merges": [tuple(x.split(" ")) for x in lines if x and not x.startswith("#version")]}
    return Tokenizer.from_str(json.dumps(build(model, pre_tokenizer=dict(BYTE_LEVEL, use_regex=True), decoder=BYTE_LEVEL)))


def llama2_tokenizer(path):
    """SentencePiece's BPE as merges: the pieces by falling score, each with all its ways into two, longest left part first."""
    import sentencepiece
    pieces = sentencepiece.SentencePieceProcessor(model_file=path)
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.vocab_size())}
    normal = [i for i in range(pieces.vocab_size()) if not (pieces.is_byte(i) or pieces.is_control(i) or pieces.is_unknown(i))]
    merges = []
    for i in sorted(normal, key=lambda i: -pieces.get_score(i)):
        piece = pieces.id_to_piece(i)
        for n in range(len(piece) - 1, 0, -1):
            if piece[:n] in vocab and piece[n:] in vocab: merges.append((piece[:n], piece[n:]))
    model = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocab, "merges": merges}
    unk = [AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")]
    return Tokenizer.from_str(json.dumps(build(model, unk, lambda ids: template(["<s>"], [], ids), normalizer=LLAMA2_NORMAL,
                                               decoder=LLAMA2_DECODE)))


def shared_lines(shared):
    texts = ["data/tinystories/valid.txt", "data/wikitext-2/wiki.test.raw", "data/tinyshakespeare/input.txt"]
    tokenizers = {"stories260K": Tokenizer.from_file(os.path.join(shared, "models/stories260K/tokenizer.json")),
                  "gpt2": gpt2_tokenizer(os.path.join(shared, "tokenizers/gpt2")),
                  "llama-2": llama2_tokenizer(os.path.join(shared, "tokenizers/llama-2/tokenizer.model"))}
    for name, tok in tokenizers.items():
        for text in texts:
            ids = tok.encode(open(os.path.join(shared, text), encoding="utf-8", newline="").read()).ids
            yield "%s %s %d %016x" % (name, text, len(ids), fnv(0xcbf29ce484222325, packed(ids)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared")
    args = parser.parse_args()
    os.makedirs(OUT, exist_ok=True)
    strings = make_strings()
    write("strings.txt", "".join(escaped(s) + "\n" for s in strings))
    for name, t in make_tokenizers().items():
        text = json.dumps(t, ensure_ascii=False, separators=(",", ":"))
        write(name + ".json", text + "\n")
        write(name + ".txt", "\n".join(expected(Tokenizer.from_str(text), strings)) + "\n")
    if args.shared:
        write("shared.txt", "".join(line + "\n" for line in shared_lines(args.shared)))


if __name__ == "__main__":
    main()
