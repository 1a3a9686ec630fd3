// A grammar: GBNF text, read, checked and compiled. Immutable; shared by all matchers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "grammar/completion.h"
#include "grammar/limits.h"
#include "grammar/program.h"

namespace ltm::grammar {

class Grammar {
  public:
    // Throws Error(grammar).
    explicit Grammar(std::string text, std::string root = "root", const Limits& limits = {});

    [[nodiscard]] const std::string& text() const noexcept { return text_; }
    [[nodiscard]] const std::string& root() const noexcept { return root_; }
    [[nodiscard]] const Limits& limits() const noexcept { return limits_; }
    [[nodiscard]] const Program& program() const noexcept { return program_; }
    [[nodiscard]] const Distances& distances() const noexcept { return distances_; }
    [[nodiscard]] bool is_regular() const noexcept { return program_.regular; }

    // True if `bytes` are a whole document.
    [[nodiscard]] bool accepts(std::string_view bytes) const;
    // Number of leading bytes that some document begins with.
    [[nodiscard]] std::size_t valid_prefix(std::string_view bytes) const;
    // A random document: random choices for about `length` bytes, then the shortest way to the end. Same seed, same
    // document, on every platform.
    [[nodiscard]] std::string sample_bytes(std::uint64_t seed, std::size_t length) const;
    // The document that takes the fewest bytes.
    [[nodiscard]] std::string shortest() const;

  private:
    std::string text_;
    std::string root_;
    Limits limits_;
    Program program_;
    Distances distances_;
};

}  // namespace ltm::grammar
