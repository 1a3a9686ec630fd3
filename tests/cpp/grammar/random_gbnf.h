// Random GBNF: structure-aware, over a small alphabet so that texts and grammars meet often.
#pragma once

#include <cstdint>
#include <string>

namespace random_gbnf {

class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() noexcept {
        state_ += 0x9E3779B97F4A7C15ULL;
        std::uint64_t x = state_;
        x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
        x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
        return x ^ (x >> 31U);
    }
    std::uint32_t below(std::uint32_t n) noexcept { return static_cast<std::uint32_t>(next() % n); }

  private:
    std::uint64_t state_;
};

// `recursion`: rules may refer to themselves and to earlier ones.
class Writer {
  public:
    Writer(Random& random, bool recursion, std::uint32_t largest_bound, int depth = 3)
        : random_(random), recursion_(recursion), largest_(largest_bound), depth_(depth) {}

    std::string grammar() {
        const std::uint32_t rules = 1 + random_.below(4);
        std::string text;
        for (std::uint32_t i = 0; i < rules; ++i) {
            rule_ = i;
            rules_ = rules;
            text += name(i) + " ::= " + choice(depth_) + "\n";
        }
        return text;
    }

  private:
    std::string name(std::uint32_t i) const { return i == 0 ? "root" : "r-" + std::to_string(i); }

    std::string choice(int depth) {
        std::string text = sequence(depth);
        for (std::uint32_t i = random_.below(3); i > 0; --i) text += " | " + sequence(depth);
        return text;
    }

    std::string sequence(int depth) {
        std::string text;
        for (std::uint32_t i = random_.below(4); i > 0; --i) {
            if (!text.empty()) text += " ";
            text += item(depth) + repetition();
        }
        return text.empty() ? "\"a\"" : text;
    }

    std::string item(int depth) {
        static const char* const kLiterals[] = {"\"a\"",  "\"b\"", "\"ab\"", "\"ba\"", "\"ж\"",
                                                "\"aж\"", "\"é\"", "\"😀\"", "\"\"",   "\"abab\""};
        static const char* const kClasses[] = {"[ab]", "[^a]",  "[a-c]",          "[жé]", "[^ж]",
                                               ".",    "[а-я]", "[^\\x00-\\x1f]", "[b😀]"};
        switch (random_.below(depth > 0 ? 5 : 3)) {
            case 0:
                return kLiterals[random_.below(10)];
            case 1:
                return kClasses[random_.below(9)];
            case 2:
                if (recursion_ && random_.below(2) == 0) return name(random_.below(rules_));
                if (rule_ + 1 < rules_) return name(rule_ + 1 + random_.below(rules_ - rule_ - 1));
                return "\"b\"";
            default:
                return "(" + choice(depth - 1) + ")";
        }
    }

    std::string repetition() {
        const auto bound = [this] { return random_.below(random_.below(4) == 0 ? largest_ : 5); };
        switch (random_.below(9)) {
            case 0:
                return "*";
            case 1:
                return "+";
            case 2:
                return "?";
            case 3:
                return "{" + std::to_string(bound()) + "}";
            case 4:
                return "{" + std::to_string(bound()) + ",}";
            case 5: {
                const std::uint32_t low = bound();
                return "{" + std::to_string(low) + "," + std::to_string(low + bound()) + "}";
            }
            default:
                return "";
        }
    }

    Random& random_;
    bool recursion_;
    std::uint32_t largest_;
    int depth_;
    std::uint32_t rule_ = 0;
    std::uint32_t rules_ = 1;
};

}  // namespace random_gbnf
