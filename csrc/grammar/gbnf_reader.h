// GBNF text to rules. The language is the one that llama.cpp reads (src/llama-grammar.cpp), without token references.
#pragma once

#include <string_view>

#include "grammar/grammar_ir.h"
#include "grammar/limits.h"

namespace ltm::grammar {

// Stricter than llama.cpp where it is silently wrong: a rule defined twice, an empty or reversed character class,
// {m,n} with n < m, surrogates and bytes that are not UTF-8 are refused; {m,n} with a large n stays bounded.
// Throws Error(grammar): "grammar: line L, column C: found X, expected Y".
[[nodiscard]] GrammarIr read_gbnf(std::string_view text, std::string_view root = "root", const Limits& limits = {});

}  // namespace ltm::grammar
