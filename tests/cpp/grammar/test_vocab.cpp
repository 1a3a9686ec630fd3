// The trie holds every usable token once, summarises its subtrees rightly, and survives a trip to disk.
#include <algorithm>

#include "check.h"
#include "grammar/vocab.h"
#include "support/error.h"
#include "toy_vocab.h"

using namespace ltm::grammar;

namespace {

void test_trie() {
    const toy::ToyVocab toy;
    const Vocab& vocab = *toy.vocab;
    std::vector<bool> seen(vocab.size(), false);
    std::vector<std::string> path(vocab.longest() + 1);
    for (std::uint32_t i = 0; i < vocab.node_count(); ++i) {
        const Vocab::Node& node = vocab.nodes()[i];
        if (i > 0) path[node.depth] = path[node.depth - 1U] + static_cast<char>(node.byte);
        for (std::uint32_t t = node.token; t < vocab.nodes()[i + 1].token; ++t) {
            const std::uint32_t token = vocab.order()[t];
            CHECK(!seen[token]);
            seen[token] = true;
            CHECK_EQ(std::string(vocab.piece(token)), path[node.depth]);
        }
        CHECK(node.end > i && node.end <= vocab.node_count());
    }
    for (std::uint32_t token = 0; token < vocab.size(); ++token) {
        const bool usable = vocab.kind(token) == TokenKind::text;
        CHECK_EQ(seen[token], usable);
        CHECK_EQ(((vocab.text_mask()[token >> 5U] >> (token & 31U)) & 1U) != 0, usable);
        if (!usable) continue;
        std::uint32_t node = 0;
        for (const char byte : vocab.piece(token)) node = vocab.child(node, static_cast<std::uint8_t>(byte));
        CHECK(node != 0 && vocab.has_token(node));
    }
    CHECK(vocab.ends() == std::vector<std::uint32_t>{toy.end});
    CHECK(vocab.kind(0) == TokenKind::excluded);                                             // the piece "\0"
    CHECK(vocab.kind(static_cast<std::uint32_t>(vocab.size() - 1)) == TokenKind::excluded);  // the empty piece
    CHECK_EQ(vocab.child(0, 0), 0U);
}

void test_summaries() {
    const toy::ToyVocab toy;
    const Vocab& vocab = *toy.vocab;
    for (std::uint32_t i = 1; i < vocab.node_count(); ++i) {
        const Vocab::Node& node = vocab.nodes()[i];
        if (node.begins == 0) continue;
        const std::uint64_t kinds = vocab.kind_sets()[node.kinds];
        for (std::uint32_t t = node.token; t < vocab.nodes()[node.end].token; ++t) {
            const std::string_view rest = vocab.piece(vocab.order()[t]).substr(node.depth - 1U);
            PartialChar partial;
            std::uint32_t chars = 0;
            for (const char byte : rest) {
                if (partial.none()) ++chars;
                std::uint32_t cp = 0;
                const auto status = partial.push(static_cast<std::uint8_t>(byte), cp);
                if (status == PartialChar::Status::bad) {
                    CHECK((kinds & kinds::kMalformed) != 0);
                    chars = 0;
                    break;
                }
                if (status == PartialChar::Status::complete) CHECK((kinds::of_range(cp, cp) & ~kinds) == 0);
            }
            CHECK(chars <= node.chars);
            if (!partial.none()) CHECK((kinds::of_range(partial.low(), partial.high()) & ~kinds) == 0);
        }
    }
}

void test_kinds() {
    const CodePointSet all = CodePointSet().complement();
    CHECK_EQ(kinds::inside(all) & kinds::kMalformed, 0U);
    for (const std::uint32_t cp : {0x1U, 0x20U, 0x41U, 0x7FU, 0x85U, 0x416U, 0x2028U, 0xFFFFU, 0x1F600U, 0x10FFFFU}) {
        CHECK((kinds::of_range(cp, cp) & ~kinds::inside(all)) == 0);
    }
    const CodePointSet no_quote = CodePointSet({{'"', '"'}, {0x2028, 0x2029}}).complement();
    CHECK((kinds::of_range('"', '"') & kinds::inside(no_quote)) == 0);
    CHECK((kinds::of_range(0x2028, 0x2028) & kinds::inside(no_quote)) == 0);
    CHECK((kinds::of_range('a', 'a') & kinds::inside(no_quote)) != 0);
    CHECK((kinds::of_range('a', 'a') & kinds::inside(CodePointSet({{'a', 'y'}}))) == 0);
    CHECK((kinds::of_range('z', 'z') & kinds::touching(CodePointSet({{'a', 'y'}}))) != 0);
    CHECK((kinds::of_range(0x416, 0x416) & kinds::touching(CodePointSet({{'a', 'y'}}))) == 0);
}

void test_disk() {
    const toy::ToyVocab toy;
    const std::string blob = toy.vocab->serialise();
    const Vocab again = Vocab::deserialise(blob);
    CHECK(again.serialise() == blob);
    CHECK_EQ(again.size(), toy.vocab->size());
    CHECK(again.text_mask() == toy.vocab->text_mask());
    CHECK(again.ends() == toy.vocab->ends());
    CHECK_EQ(again.longest(), toy.vocab->longest());
    for (std::size_t cut : {std::size_t{0}, std::size_t{10}, std::size_t{47}, blob.size() / 2, blob.size() - 1}) {
        CHECK_THROWS(Vocab::deserialise(std::string_view(blob).substr(0, cut)), ltm::Error);
    }
    CHECK_THROWS(Vocab::deserialise(blob + "x"), ltm::Error);
    for (std::size_t at = 0; at < blob.size(); at += 97) {
        std::string damaged = blob;
        damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
        CHECK_THROWS(Vocab::deserialise(damaged), ltm::Error);
    }
}

void test_arguments() {
    CHECK_THROWS(Vocab({}, {}), ltm::Error);
    CHECK_THROWS(Vocab({"a"}, {}), ltm::Error);
    const std::string longer(5000, 'x');
    const Vocab vocab({longer, "a", "a"}, {TokenKind::text, TokenKind::text, TokenKind::text});
    CHECK(vocab.kind(0) == TokenKind::excluded);
    CHECK_EQ(vocab.node_count(), 2U);  // twins share a node
    const Vocab none({"</s>"}, {TokenKind::end});
    CHECK_EQ(none.node_count(), 1U);
}

void test_control_names() {
    for (const char* text :
         {"<|im_start|>", "<｜User｜>", "<unused12>", "<start_of_turn>", "[INST]", "[/INST]", "[TOOL_CALLS]"}) {
        CHECK(looks_like_control(text));
    }
    for (const char* text :
         {"<div>", "</p>", "<h1>", "[a]", "[1]", "\n\n", "<<<>>>", "<>", "word", "[X]", "<|", "<table>"}) {
        CHECK(!looks_like_control(text));
    }
}

}  // namespace

int main() {
    test_trie();
    test_summaries();
    test_kinds();
    test_disk();
    test_arguments();
    test_control_names();
    return check_report();
}
