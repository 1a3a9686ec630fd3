#include <string>
#include <vector>

#include "check.h"
#include "support/utf8.h"

namespace {

void complete_prefix() {
    struct Row {
        std::string bytes;
        std::size_t complete;
    };
    const std::vector<Row> rows = {
        {"", 0},
        {"abc", 3},
        {"\xD0", 0},  // first half of a Cyrillic letter
        {"a\xD0\xB4", 3},
        {"a\xE2\x82", 1},  // two thirds of the euro sign
        {"\xE2\x82\xAC", 3},
        {"\xF0\x9F\x8C", 0},  // three quarters of an emoji
        {"\xF0\x9F\x8C\xB1", 4},
        {"\xFF", 1},              // never a character: passed on
        {"\xC0", 1},              // overlong lead: passed on
        {"\x80\x80\x80\x80", 4},  // stray continuations: passed on
    };
    for (const Row& row : rows) CHECK_EQ(ltm::utf8_complete_prefix(row.bytes), row.complete);
}

// However a text is cut into tokens, what comes out never ends inside a character and adds up to the text.
void stream_never_splits() {
    const std::string text = "a\xD0\xB4\xE2\x82\xAC\xF0\x9F\x8C\xB1z";
    for (std::size_t first = 0; first <= text.size(); ++first) {
        for (std::size_t second = first; second <= text.size(); ++second) {
            ltm::Utf8Stream stream;
            std::string all;
            for (const std::string& piece :
                 {text.substr(0, first), text.substr(first, second - first), text.substr(second)}) {
                const std::string ready = stream.push(piece);
                CHECK_EQ(ltm::utf8_complete_prefix(ready), ready.size());
                all += ready;
            }
            CHECK(stream.flush().empty());
            CHECK_EQ(all, text);
        }
    }
}

void flush_returns_the_unfinished() {
    ltm::Utf8Stream stream;
    CHECK_EQ(stream.push("a\xF0\x9F"), std::string("a"));
    CHECK_EQ(stream.flush(), std::string("\xF0\x9F"));
    CHECK(stream.flush().empty());
}

}  // namespace

int main() {
    complete_prefix();
    stream_never_splits();
    flush_returns_the_unfinished();
    return check_report();
}
