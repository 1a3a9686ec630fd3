// A small vocabulary made like real ones: all bytes, pieces of words, quotes glued to line ends, tokens that end inside
// characters, long runs of blanks, control tokens. And the greedy pair-merging tokenizer that belongs to it.
#pragma once

#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/vocab.h"

namespace toy {

using ltm::grammar::TokenKind;
using ltm::grammar::Vocab;

struct ToyVocab {
    std::vector<std::string> pieces;
    std::vector<TokenKind> kinds;
    std::map<std::string, std::uint32_t, std::less<>> rank;  // of pieces that merges make
    std::shared_ptr<const Vocab> vocab;
    std::uint32_t end = 0;

    ToyVocab() {
        for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
        // Every merge joins two pieces that exist already, as byte-pair training does.
        static const char* const kMerges[] = {"th",       "the",
                                              " t",       " the",
                                              "in",       "ing",
                                              "an",       "and",
                                              " an",      " and",
                                              "er",       "re",
                                              "on",       "or",
                                              " v",       " vs",
                                              "ten",      "ns",
                                              "sion",     "ten",
                                              "si",       "io",
                                              "ion",      "te",
                                              "ar",       "ch",
                                              "et",       "ype",
                                              "ne",       "sc",
                                              "en",       "cene",
                                              "ce",       "sce",
                                              "ene",      "st",
                                              "ro",       "ot",
                                              "oo",       "ab",
                                              "ba",       "aa",
                                              "aaa",      "aaaa",
                                              "abab",     "  ",
                                              "    ",     "\n  ",
                                              "\n    ",   "\"\n",
                                              ".\n",      ": ",
                                              ": \"",     " \"",
                                              "\"\n  ",   ":\n",
                                              "|\n",      " |",
                                              " |\n",     "        ",
                                              "on the",   "()",
                                              "{\"",      "\":",
                                              "\": ",     "\",",
                                              "\"}",      "[]",
                                              "}}",       "ж",
                                              "жж",       "é",
                                              "è",        "\xD0\xB6\xD0",
                                              "\xF0\x9F", "\xF0\x9F\x98",
                                              "😀",       "не",
                                              "я\"",      "!!",
                                              "!!!!",     "!!!!!!!!",
                                              "xyz",      "x",
                                              "xx",       "xxx",
                                              "xxxxx",    "xxxxxxxxxxxxxxxxxxxxxxxx"};
        for (const char* merge : kMerges) add(merge);
        for (const char* control : {"<s>", "<|im_start|>", "<unk>"}) add(control, TokenKind::excluded);
        end = static_cast<std::uint32_t>(pieces.size());
        add("</s>", TokenKind::end);
        add("", TokenKind::text);
        std::vector<std::string_view> views(pieces.begin(), pieces.end());
        vocab = std::make_shared<const Vocab>(views, kinds);
    }

    // Joins the neighbouring pair whose piece stands earliest in the vocabulary, leftmost first, until none is left.
    [[nodiscard]] std::vector<std::uint32_t> tokenize(std::string_view text) const {
        std::vector<std::string> parts;
        for (const char byte : text) parts.emplace_back(1, byte);
        for (;;) {
            std::size_t best = parts.size();
            std::uint32_t best_rank = std::numeric_limits<std::uint32_t>::max();
            for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
                const auto it = rank.find(parts[i] + parts[i + 1]);
                if (it != rank.end() && it->second < best_rank) {
                    best = i;
                    best_rank = it->second;
                }
            }
            if (best == parts.size()) break;
            parts[best] += parts[best + 1];
            parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
        }
        std::vector<std::uint32_t> tokens;
        for (const std::string& part : parts) tokens.push_back(rank.at(part));
        return tokens;
    }

  private:
    void add(std::string piece, TokenKind kind = TokenKind::text) {
        if (kind == TokenKind::text && rank.contains(piece)) return;
        if (kind == TokenKind::text) rank.emplace(piece, static_cast<std::uint32_t>(pieces.size()));
        pieces.push_back(std::move(piece));
        kinds.push_back(kind);
    }
};

}  // namespace toy
