// Masks against a byte-by-byte oracle, landing, forced text, and the matcher's bookkeeping.
#include <algorithm>
#include <cmath>
#include <set>

#include "check.h"
#include "grammar/matcher.h"
#include "random_gbnf.h"
#include "support/error.h"
#include "toy_vocab.h"

using namespace ltm::grammar;

#define CHECK_MSG(condition, message) \
    check::report(static_cast<bool>(condition), __FILE__, __LINE__, std::string(#condition ": ") + (message))

namespace {

const char* const kScene =
    R"GBNF(root ::= "scene:\n  tension: " slot "\n  archetype: \"" arch "\"\n" comment? "  response: |\n" line{1,3}
slot ::= "\"" text " vs " text "\""
text ::= nb | nb any{0,18} nb
nb ::= [^"\\\x00-\x20\x7f-\xa0\u2028\u2029\ufeff]
any ::= [^"\\\x00-\x1f\x7f-\xa0\u2028\u2029\ufeff]
arch ::= "initiator" | "pilgrim" | "guardian" | "инициатор"
comment ::= "  self_commentary: \"" text "\"\n"
line ::= "    " nbl ([^\x00-\x1f\x7f-\xa0\u2028\u2029\ufeff]{0,38} nbl)? "\n"
nbl ::= [^\x00-\x20\x7f-\xa0\u2028\u2029\ufeff]
)GBNF";
const char* const kJson = R"GBNF(root ::= object
value ::= object | array | string | number | "true" | "null"
object ::= "{" (string ":" " "? value ("," string ":" value)*)? "}"
array ::= "[" (value ("," value)*)? "]"
string ::= "\"" ([^"\\\x00-\x1f] | "\\" ["\\n])* "\""
number ::= "-"? [0-9]{1,5}
)GBNF";

std::shared_ptr<MaskCache> cache_of(const toy::ToyVocab& toy, const std::string& text) {
    return std::make_shared<MaskCache>(std::make_shared<const Grammar>(text), toy.vocab);
}

// Token by token, byte by byte, from the document's beginning: no trie, no table of masks.
class SlowMask {
  public:
    SlowMask(const toy::ToyVocab& toy, const Grammar& grammar) : toy_(toy), automaton_(grammar.program()) {}

    std::set<std::uint32_t> allowed(const std::string& prefix) {
        State state = automaton_.start();
        automaton_.begin_call();
        for (const char byte : prefix) CHECK(automaton_.step(state, static_cast<std::uint8_t>(byte)));
        std::set<std::uint32_t> result;
        for (std::uint32_t token = 0; token < toy_.vocab->size(); ++token) {
            if (toy_.vocab->kind(token) == TokenKind::end && automaton_.complete(state)) result.insert(token);
            if (toy_.vocab->kind(token) != TokenKind::text) continue;
            State at = state;
            bool ok = true;
            for (const char byte : toy_.vocab->piece(token))
                ok = ok && automaton_.step(at, static_cast<std::uint8_t>(byte));
            if (ok) result.insert(token);
        }
        return result;
    }

  private:
    const toy::ToyVocab& toy_;
    Automaton automaton_;
};

std::set<std::uint32_t> set_of(const Mask& mask) {
    std::set<std::uint32_t> result;
    for (std::uint32_t token = 0; token < mask.words.size() * 32; ++token) {
        if (mask.allows(token)) result.insert(token);
    }
    return result;
}

void compare_along(const toy::ToyVocab& toy, const std::string& text, const std::vector<std::string>& documents) {
    const auto cache = cache_of(toy, text);
    SlowMask slow(toy, cache->grammar());
    for (const std::string& document : documents) {
        Matcher matcher(cache);
        std::string written;
        for (const std::uint32_t token : toy.tokenize(document)) {
            const MaskPtr mask = matcher.mask();
            const std::set<std::uint32_t> expected = slow.allowed(written);
            CHECK_MSG(set_of(*mask) == expected, "after '" + written + "' in " + text);
            CHECK_EQ(static_cast<std::size_t>(mask->count), expected.size());
            for (const std::uint32_t t : mask->few) CHECK(mask->allows(t));
            if (mask->count <= Mask::kFew) CHECK_EQ(mask->few.size(), expected.size());
            CHECK(matcher.accept(token));
            written += toy.vocab->piece(token);
        }
        CHECK(set_of(*matcher.mask()) == slow.allowed(written));
    }
}

void test_masks() {
    const toy::ToyVocab toy;
    for (const char* text : {kScene, kJson}) {
        const Grammar grammar(text);
        std::vector<std::string> documents;
        for (std::uint64_t seed = 0; seed < 40; ++seed) documents.push_back(grammar.sample_bytes(seed, 20 + seed * 4));
        compare_along(toy, text, documents);
    }
    // Slots of every length, so that every distance from a slot's end is met by every token length.
    for (int length = 1; length < 32; length += 3) {
        const std::string bound = std::to_string(length);
        compare_along(toy, "root ::= \"\\\"\" [^\"\\n]{0," + bound + "} \"\\\"\\n\"",
                      {"\"" + std::string(static_cast<std::size_t>(length), 'x') + "\"\n"});
        compare_along(toy, "root ::= [a-z ]{" + bound + ",31} \".\"",
                      {std::string(31, 'x') + ".", std::string(static_cast<std::size_t>(length), 'a') + "."});
    }
}

void test_random_masks() {
    const toy::ToyVocab toy;
    random_gbnf::Random random(77);
    std::size_t grammars = 0;
    for (int round = 0; round < 150; ++round) {
        random_gbnf::Writer writer(random, round % 3 == 0, 9);
        const std::string text = writer.grammar();
        try {
            const Grammar grammar(text);
            std::vector<std::string> documents;
            for (int i = 0; i < 3; ++i) {
                std::string document = grammar.sample_bytes(random.next(), random.below(25));
                if (document.size() < 60) documents.push_back(std::move(document));
            }
            compare_along(toy, text, documents);
            ++grammars;
        } catch (const ltm::Error&) {
            continue;  // left recursion, no end, or too ambiguous: tested elsewhere
        }
    }
    CHECK(grammars > 90);
    std::printf("masks compared for %zu random grammars\n", grammars);
}

void test_bookkeeping() {
    const toy::ToyVocab toy;
    const auto cache = cache_of(toy, kScene);
    Matcher matcher(cache);
    const std::string document = cache->grammar().sample_bytes(5, 160);
    const std::vector<std::uint32_t> tokens = toy.tokenize(document);
    CHECK_EQ(matcher.validate(tokens), tokens.size());
    std::vector<std::uint32_t> wrong = tokens;
    wrong[tokens.size() / 2] = toy.rank.at("\n    ");
    wrong.insert(wrong.begin() + 3, toy.rank.at("xxx"));
    CHECK_EQ(matcher.validate(wrong), 3U);
    CHECK(!matcher.accept(toy.end));
    CHECK(!matcher.accept(1'000'000));
    CHECK(!matcher.accept(toy.end - 1));
    std::vector<MaskPtr> masks;
    for (const std::uint32_t token : tokens) {
        masks.push_back(matcher.mask());
        CHECK(matcher.allows(token));
        const Matcher copy = matcher;
        CHECK(matcher.accept(token));
        CHECK_EQ(copy.tokens().size() + 1, matcher.tokens().size());
    }
    CHECK(matcher.is_complete());
    CHECK_EQ(matcher.cost_to_end(), 0U);
    CHECK(matcher.accept(toy.end));
    CHECK(matcher.finished());
    CHECK_EQ(matcher.mask()->count, 0U);
    CHECK(!matcher.accept(tokens[0]));
    for (std::size_t i = tokens.size() + 1; i-- > 0;) {
        matcher.rollback(1);
        if (i < tokens.size()) CHECK(matcher.mask() == masks[i]);
    }
    CHECK_THROWS(matcher.rollback(1), ltm::Error);
    for (const std::uint32_t token : tokens) CHECK(matcher.accept(token));
    matcher.reset();
    CHECK(matcher.tokens().empty());
    CHECK(cache->statistics().masks > 0);
}

void test_apply() {
    const toy::ToyVocab toy;
    const auto cache = cache_of(toy, "root ::= \"a\"{1,3} \"b\"");
    const Matcher matcher(cache);
    const MaskPtr mask = matcher.mask();
    std::vector<float> logits(toy.vocab->size() + 70, 1.0F);
    mask->apply(logits.data(), logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i) {
        const bool allowed = i < toy.vocab->size() && mask->allows(static_cast<std::uint32_t>(i));
        CHECK_EQ(std::isinf(logits[i]), !allowed);
    }
    std::vector<float> few(10, 1.0F);
    mask->apply(few.data(), few.size());
    CHECK(std::isinf(few[0]));
}

void test_end() {
    const toy::ToyVocab toy;
    Matcher closed(cache_of(toy, "root ::= \"ab\""));
    CHECK(closed.accept(toy.rank.at("ab")));
    CHECK(closed.is_complete() && closed.is_closed());
    CHECK(set_of(*closed.mask()) == std::set<std::uint32_t>{toy.end});
    Matcher open(cache_of(toy, "root ::= \"ab\" \"c\"?"));
    CHECK(open.accept(toy.rank.at("ab")));
    CHECK(open.is_complete() && !open.is_closed());
    CHECK(set_of(*open.mask()) == (std::set<std::uint32_t>{toy.end, toy.rank.at("c")}));
    CHECK(set_of(*open.mask(0)) == std::set<std::uint32_t>{toy.end});
}

// Random decodes with random budgets always end, complete, within them.
void test_landing() {
    const toy::ToyVocab toy;
    random_gbnf::Random random(5);
    std::size_t decodes = 0;
    const auto decode = [&](const std::shared_ptr<MaskCache>& cache, std::uint32_t budget) {
        Matcher matcher(cache);
        std::uint32_t left = budget;
        for (;;) {
            const std::uint32_t cost = matcher.cost_to_end();
            CHECK_MSG(cost <= left, cache->grammar().text());
            CHECK_EQ(cost == 0, matcher.is_complete());
            const MaskPtr mask = matcher.mask(left);
            const std::set<std::uint32_t> allowed = set_of(*mask);
            CHECK(!allowed.empty());
            if (allowed.empty()) return;
            if (random.below(8) == 0) {
                // Exactly the tokens from which the end is still in reach.
                for (const std::uint32_t token : set_of(*matcher.mask())) {
                    if (token == toy.end) continue;
                    Matcher next = matcher;
                    CHECK(next.accept(token));
                    CHECK_MSG(allowed.contains(token) == (left > 0 && next.cost_to_end() <= left - 1),
                              "token '" + std::string(toy.vocab->piece(token)) + "', " + std::to_string(left) +
                                  " left, in " + cache->grammar().text());
                }
            }
            auto pick = allowed.begin();
            std::advance(pick, random.below(static_cast<std::uint32_t>(allowed.size())));
            CHECK(matcher.accept(*pick));
            if (*pick == toy.end) break;
            CHECK(left > 0);
            --left;
        }
        ++decodes;
    };
    for (const char* text :
         {kScene, kJson, "root ::= (\"ab\"{3,9} \"ж\"){2,4} [x]{5,} \"é\"", "root ::= \"a\" root \"b\" | \"\"",
          "root ::= ([a-z]{7,20} \"\\n\"){3,5}", "root ::= \"\" | \"scene\""}) {
        const auto cache = cache_of(toy, text);
        const std::uint32_t least = Matcher(cache).cost_to_end();
        CHECK(least < kNever);
        for (std::uint32_t i = 0; i < 60; ++i)
            decode(cache, least + (i % 3 == 0 ? random.below(4) : random.below(120)));
    }
    for (int round = 0; round < 60; ++round) {
        random_gbnf::Writer writer(random, round % 4 == 0, 9);
        try {
            const auto cache = cache_of(toy, writer.grammar());
            const std::uint32_t least = Matcher(cache).cost_to_end();
            for (int i = 0; i < 5 && least < 200; ++i) decode(cache, least + random.below(20));
        } catch (const ltm::Error&) {
            continue;
        }
    }
    CHECK(decodes > 450);
    std::printf("%zu random decodes landed\n", decodes);
}

void test_never() {
    // A vocabulary that lacks a byte can't write what needs it.
    const std::vector<std::string_view> pieces{"a", "b", "</s>"};
    const auto vocab =
        std::make_shared<const Vocab>(pieces, std::vector<TokenKind>{TokenKind::text, TokenKind::text, TokenKind::end});
    Matcher can(std::make_shared<MaskCache>(std::make_shared<const Grammar>("root ::= \"a\" (\"c\" | \"b\")"), vocab));
    (void)can.mask();
    Matcher never(std::make_shared<MaskCache>(std::make_shared<const Grammar>("root ::= \"ac\""), vocab));
    CHECK(never.cost_to_end() >= kNever);
}

// Along canonical documents, forced tokens are exactly the document's next tokens; and what can't be known is held
// back.
void test_forced() {
    const toy::ToyVocab toy;
    const Tokenize tokenize = [&toy](std::string_view text) { return toy.tokenize(text); };
    std::size_t forced = 0;
    std::size_t total = 0;
    for (const char* text : {kScene, kJson, "root ::= \"on the\" [a-z]* \"ing\\n    \" [xy]{1,9}"}) {
        const auto cache = cache_of(toy, text);
        for (std::uint64_t seed = 0; seed < 150; ++seed) {
            const std::string document = cache->grammar().sample_bytes(seed, 10 + seed % 130);
            const std::vector<std::uint32_t> tokens = toy.tokenize(document);
            Matcher matcher(cache);
            std::size_t i = 0;
            while (i < tokens.size()) {
                const ForcedTokens found = matcher.forced_tokens(tokenize);
                CHECK_EQ(found.replace, 0U);
                for (const std::uint32_t token : found.tokens) {
                    CHECK_MSG(i < tokens.size() && token == tokens[i],
                              "token " + std::to_string(i) + " of '" + document + "'");
                    CHECK(matcher.accept(token));
                    ++i;
                    ++forced;
                }
                if (i >= tokens.size()) break;
                CHECK(matcher.accept(tokens[i]));
                ++i;
            }
            total += tokens.size();
        }
    }
    CHECK(forced > total / 6);
    std::printf("%zu of %zu tokens forced\n", forced, total);
}

void test_forced_replacement() {
    // The sampled `"` is written `"\n  ` once the rest is known.
    const toy::ToyVocab toy;
    const Tokenize tokenize = [&toy](std::string_view text) { return toy.tokenize(text); };
    Matcher matcher(cache_of(toy, "root ::= \"\\\"\" [a-z]{1,8} \"\\\"\\n  q\" [0-9]"));
    for (const char* piece : {"\"", "x", "\""}) CHECK(matcher.accept(toy.rank.at(piece)));
    const ForcedTokens healed = matcher.forced_tokens(tokenize, 1);
    CHECK_EQ(healed.replace, 1U);
    matcher.rollback(healed.replace);
    for (const std::uint32_t token : healed.tokens) CHECK(matcher.accept(token));
    std::string written;
    for (const std::uint32_t token : matcher.tokens()) written += toy.vocab->piece(token);
    CHECK_EQ(written, std::string("\"x\"\n  q"));
    CHECK(matcher.tokens() == toy.tokenize(written));
    // With a budget too small for the tokenizer's own cut nothing is forced that could not be ended in time.
    Matcher tight(cache_of(toy, "root ::= \"\\\"\" [a-z]{1,8} \"\\\"\\n  q\" [0-9]"));
    CHECK(tight.accept(toy.rank.at("\"")));
    const std::uint32_t cost = tight.cost_to_end();
    CHECK(tight.forced_tokens(tokenize, 0, cost).tokens.size() <= cost);
}

}  // namespace

int main() {
    test_masks();
    test_random_masks();
    test_bookkeeping();
    test_apply();
    test_end();
    test_landing();
    test_never();
    test_forced();
    test_forced_replacement();
    return check_report();
}
