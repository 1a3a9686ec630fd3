#include "grammar/gbnf_reader.h"

#include <unordered_map>

#include "support/error.h"

namespace ltm::grammar {
namespace {

bool is_word(std::uint32_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

bool is_digit(std::uint32_t c) { return c >= '0' && c <= '9'; }

class Reader {
  public:
    Reader(std::string_view text, const Limits& limits) : limits_(limits) {
        if (text.size() > limits.text_bytes) {
            throw Error(ErrorCode::grammar, "grammar: the text has " + std::to_string(text.size()) +
                                                " bytes, the limit is " + std::to_string(limits.text_bytes));
        }
        decode(text);
    }

    GrammarIr read(std::string_view root) {
        skip(true);
        while (!at_end()) read_rule();
        if (ir_.rules.empty()) fail("a rule: name ::= …");
        for (const Node& node : ir_.nodes) {
            if (node.kind == NodeKind::rule && ir_.rules[node.index].line == 0) {
                fail_at(node.line, node.column,
                        "rule '" + ir_.rules[node.index].name + "' is used here but defined nowhere");
            }
        }
        const auto it = numbers_.find(std::string(root));
        if (it == numbers_.end()) {
            throw Error(ErrorCode::grammar, "grammar: there is no rule '" + std::string(root) + "' to start from");
        }
        ir_.root = it->second;
        return std::move(ir_);
    }

  private:
    struct Place {
        std::uint32_t line;
        std::uint32_t column;
    };

    void decode(std::string_view text) {
        PartialChar partial;
        std::uint32_t line = 1;
        std::uint32_t column = 1;
        for (std::size_t i = 0; i < text.size(); ++i) {
            std::uint32_t cp = 0;
            const auto status = partial.push(static_cast<std::uint8_t>(text[i]), cp);
            if (status == PartialChar::Status::bad) fail_at(line, column, "the bytes here are not UTF-8");
            if (status == PartialChar::Status::partial) continue;
            if (cp == 0) fail_at(line, column, "found a NUL byte");
            chars_.push_back(cp);
            places_.push_back({line, column});
            if (cp == '\n' || (cp == '\r' && (i + 1 == text.size() || text[i + 1] != '\n'))) {
                ++line;
                column = 1;
            } else {
                ++column;
            }
        }
        if (!partial.none()) fail_at(line, column, "the text ends inside a character");
        places_.push_back({line, column});
    }

    [[noreturn]] void fail_at(std::uint32_t line, std::uint32_t column, const std::string& what) const {
        throw Error(ErrorCode::grammar,
                    "grammar: line " + std::to_string(line) + ", column " + std::to_string(column) + ": " + what);
    }

    [[noreturn]] void fail(const std::string& expected) const { fail_from(pos_, expected); }

    [[noreturn]] void fail_from(std::size_t pos, const std::string& expected) const {
        std::string found = "the end";
        if (pos < chars_.size()) {
            const std::uint32_t c = chars_[pos];
            if (c == '\n' || c == '\r') {
                found = "the end of the line";
            } else if (c < 0x20 || c == 0x7F) {
                found = "control character " + std::to_string(c);
            } else {
                found = "'";
                append_utf8(found, c);
                found += "'";
            }
        }
        fail_at(places_[pos].line, places_[pos].column, "found " + found + ", expected " + expected);
    }

    [[nodiscard]] bool at_end() const noexcept { return pos_ == chars_.size(); }
    [[nodiscard]] std::uint32_t peek(std::size_t ahead = 0) const noexcept {
        return pos_ + ahead < chars_.size() ? chars_[pos_ + ahead] : 0;
    }

    void skip(bool newlines) noexcept {
        for (;;) {
            const std::uint32_t c = peek();
            if (c == '#') {
                while (!at_end() && peek() != '\n' && peek() != '\r') ++pos_;
            } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
                ++pos_;
            } else {
                return;
            }
        }
    }

    std::string read_name() {
        std::string name;
        while (is_word(peek())) name.push_back(static_cast<char>(chars_[pos_++]));
        if (name.empty()) {
            if (peek() == '|') {
                fail(
                    "a rule; to go on with alternatives on a new line end the line before with '|' or use parentheses");
            }
            fail("a rule name (letters, digits and '-')");
        }
        if (peek() == '_') fail("a letter, a digit or '-': rule names hold no underscore");
        return name;
    }

    std::uint32_t rule_number(const std::string& name) {
        const auto [it, added] = numbers_.emplace(name, static_cast<std::uint32_t>(ir_.rules.size()));
        if (added) {
            if (ir_.rules.size() == limits_.rules) {
                fail_at(places_[pos_].line, places_[pos_].column,
                        "more than " + std::to_string(limits_.rules) + " rules");
            }
            ir_.rules.push_back({name, 0, 0, 0});
        }
        return it->second;
    }

    void read_rule() {
        const Place place = places_[pos_];
        const std::string name = read_name();
        skip(false);
        if (peek() != ':' || peek(1) != ':' || peek(2) != '=') fail("'::='");
        pos_ += 3;
        skip(true);
        const std::uint32_t number = rule_number(name);
        if (ir_.rules[number].line != 0) {
            fail_at(place.line, place.column,
                    "rule '" + name + "' is already defined in line " + std::to_string(ir_.rules[number].line));
        }
        ir_.rules[number].line = place.line;
        ir_.rules[number].column = place.column;
        const std::uint32_t node = read_choice(false, 0);
        ir_.rules[number].node = node;
        if (!at_end() && peek() != '\n' && peek() != '\r') fail("the end of the line, or more of the rule");
        skip(true);
    }

    std::uint32_t read_choice(bool nested, std::size_t depth) {
        std::vector<std::uint32_t> parts{read_sequence(nested, depth)};
        while (peek() == '|') {
            ++pos_;
            skip(true);
            parts.push_back(read_sequence(nested, depth));
        }
        return ir_.add_group(NodeKind::choice, parts);
    }

    std::uint32_t read_sequence(bool nested, std::size_t depth) {
        std::vector<std::uint32_t> parts;
        for (;;) {
            const std::uint32_t c = peek();
            if (at_end()) break;
            if (c == '"') {
                parts.push_back(read_literal());
            } else if (c == '[') {
                parts.push_back(read_class());
            } else if (c == '.') {
                ++pos_;
                parts.push_back(ir_.add({NodeKind::chars, ir_.add_set(CodePointSet().complement())}));
            } else if (c == '(') {
                if (depth >= limits_.nesting) {
                    fail_at(places_[pos_].line, places_[pos_].column,
                            "groups are nested deeper than " + std::to_string(limits_.nesting));
                }
                ++pos_;
                skip(true);
                parts.push_back(read_choice(true, depth + 1));
                if (peek() != ')') fail("')', or more of the group");
                ++pos_;
            } else if (is_word(c)) {
                const Place place = places_[pos_];
                Node node{NodeKind::rule};
                node.index = rule_number(read_name());
                node.line = place.line;
                node.column = place.column;
                parts.push_back(ir_.add(node));
            } else if (c == '*' || c == '+' || c == '?' || c == '{') {
                if (parts.empty()) fail("something to repeat before it");
                parts.back() = read_repeat(parts.back(), nested);
            } else if (c == '<' || c == '!') {
                fail("text: references to tokens (<…>, !<…>) are not supported, this grammar describes text only");
            } else {
                break;
            }
            skip(nested);
        }
        return ir_.add_group(NodeKind::sequence, parts);
    }

    std::uint32_t read_repeat(std::uint32_t child, bool nested) {
        Node node{NodeKind::repeat, child};
        const std::size_t start = pos_;
        const std::uint32_t c = chars_[pos_++];
        node.max = kUnbounded;
        if (c == '+') {
            node.min = 1;
        } else if (c == '?') {
            node.max = 1;
        } else if (c == '{') {
            skip(nested);
            node.min = read_int();
            skip(nested);
            if (peek() == '}') {
                node.max = node.min;
            } else if (peek() == ',') {
                ++pos_;
                skip(nested);
                if (is_digit(peek())) {
                    node.max = read_int();
                    skip(nested);
                }
                if (peek() != '}') fail("'}'");
            } else {
                fail("',' or '}'");
            }
            ++pos_;
            if (node.max < node.min) {
                fail_at(places_[start].line, places_[start].column,
                        "the repetition's upper bound " + std::to_string(node.max) + " is below its lower bound " +
                            std::to_string(node.min));
            }
        }
        if (node.max == 0) return ir_.add({});
        if (node.min == 1 && node.max == 1) return child;
        return ir_.add(node);
    }

    std::uint32_t read_int() {
        if (!is_digit(peek())) fail("a number");
        const std::size_t start = pos_;
        std::uint64_t value = 0;
        while (is_digit(peek())) {
            value = value * 10 + (chars_[pos_++] - '0');
            if (value > limits_.repetition) {
                fail_at(places_[start].line, places_[start].column,
                        "the repetition is above the limit of " + std::to_string(limits_.repetition));
            }
        }
        return static_cast<std::uint32_t>(value);
    }

    std::uint32_t read_hex(int digits) {
        std::uint32_t value = 0;
        for (int i = 0; i < digits; ++i) {
            const std::uint32_t c = peek();
            std::uint32_t digit = 0;
            if (is_digit(c)) {
                digit = c - '0';
            } else if (c >= 'a' && c <= 'f') {
                digit = c - 'a' + 10;
            } else if (c >= 'A' && c <= 'F') {
                digit = c - 'A' + 10;
            } else {
                fail(std::to_string(digits) + " hexadecimal digits");
            }
            value = (value << 4U) | digit;
            ++pos_;
        }
        return value;
    }

    std::uint32_t read_char() {
        const std::size_t start = pos_;
        if (at_end()) fail("the end of the quotation or class");
        std::uint32_t c = chars_[pos_++];
        if (c != '\\') return c;
        if (at_end()) fail("an escaped character");
        c = chars_[pos_++];
        switch (c) {
            case 'x':
                c = read_hex(2);
                break;
            case 'u':
                c = read_hex(4);
                break;
            case 'U':
                c = read_hex(8);
                break;
            case 't':
                return '\t';
            case 'r':
                return '\r';
            case 'n':
                return '\n';
            case '\\':
            case '"':
            case '[':
            case ']':
            case '-':
                return c;
            default:
                --pos_;
                fail("one of the escapes \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\xNN \\uNNNN \\UNNNNNNNN");
        }
        if (c > kLastCodePoint || (c >= kFirstSurrogate && c <= kLastSurrogate)) {
            fail_at(places_[start].line, places_[start].column, "the escape is not a character of Unicode");
        }
        return c;
    }

    std::uint32_t read_literal() {
        Node node{NodeKind::literal, static_cast<std::uint32_t>(ir_.text.size())};
        ++pos_;
        while (peek() != '"') {
            if (at_end()) fail("'\"'");
            const std::size_t start = pos_;
            const std::uint32_t c = read_char();
            if (c == 0) fail_at(places_[start].line, places_[start].column, "a text can't hold U+0000");
            ir_.text.push_back(static_cast<char32_t>(c));
        }
        ++pos_;
        node.count = static_cast<std::uint32_t>(ir_.text.size()) - node.index;
        return node.count == 0 ? ir_.add({}) : ir_.add(node);
    }

    std::uint32_t read_class() {
        const std::size_t start = pos_++;
        const bool negated = peek() == '^';
        if (negated) ++pos_;
        std::vector<CodePointSet::Range> ranges;
        while (peek() != ']') {
            if (at_end()) fail("']'");
            const std::size_t item = pos_;
            const std::uint32_t low = read_char();
            std::uint32_t high = low;
            if (peek() == '-' && peek(1) != ']') {
                ++pos_;
                high = read_char();
            }
            if (high < low) {
                fail_at(places_[item].line, places_[item].column, "the character range is reversed");
            }
            ranges.emplace_back(low, high);
        }
        ++pos_;
        if (ranges.empty()) fail_at(places_[start].line, places_[start].column, "the character class is empty");
        CodePointSet set(std::move(ranges));
        if (negated) set = set.complement();
        if (set.empty()) {
            fail_at(places_[start].line, places_[start].column, "no character is in this character class");
        }
        return ir_.add({NodeKind::chars, ir_.add_set(std::move(set))});
    }

    const Limits& limits_;
    std::u32string chars_;
    std::vector<Place> places_;
    std::size_t pos_ = 0;
    GrammarIr ir_;
    std::unordered_map<std::string, std::uint32_t> numbers_;
};

}  // namespace

GrammarIr read_gbnf(std::string_view text, std::string_view root, const Limits& limits) {
    return Reader(text, limits).read(root);
}

}  // namespace ltm::grammar
