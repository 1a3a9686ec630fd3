// Cutting a byte stream at UTF-8 character boundaries: tokens may end inside a character, a reader must not see that.
#pragma once

#include <string>
#include <string_view>

namespace ltm {

// Length of the longest prefix of `bytes` that does not end inside a character. Bytes that can never become
// valid UTF-8 count as complete, so that a broken stream is passed on rather than held back for ever.
[[nodiscard]] std::size_t utf8_complete_prefix(std::string_view bytes) noexcept;

// Buffers at most three bytes of an unfinished character between pushes.
class Utf8Stream {
  public:
    // Takes the next bytes; returns what can be shown now.
    [[nodiscard]] std::string push(std::string_view bytes);
    // What is left at the end of the stream (an unfinished character, or nothing).
    [[nodiscard]] std::string flush();

  private:
    std::string pending_;
};

}  // namespace ltm
