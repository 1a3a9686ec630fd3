// Proposals for what comes next, taken from texts that the answer is likely to repeat (prompt lookup decoding, Saxena
// 2023; llama.cpp's examples/lookup). Every proposal is checked by the model, so the answer is the same without them.
#pragma once

#include <llama.h>

#include <cstddef>
#include <vector>

namespace ltm {

class Copying {
  public:
    // References in the order of their worth: of equal matches the first one's is taken.
    explicit Copying(std::vector<std::vector<llama_token>> references) : references_(std::move(references)) {}

    // Tokens that may follow `text`, at most `most`; empty if nothing matches or copying has been given up.
    [[nodiscard]] std::vector<llama_token> propose(const std::vector<llama_token>& text, std::size_t most);
    // What came of the last proposal: how many of its tokens the model wrote too, and what the decode with it took; 0
    // where others shared the decode, so that nobody knows.
    void accepted(std::size_t proposed, std::size_t accepted, double milliseconds);
    // What a decode without a proposal took, for the comparison.
    void plain(double milliseconds);

    [[nodiscard]] bool active() const noexcept { return !references_.empty() && !given_up_; }

  private:
    struct Place {
        std::size_t reference = 0;
        std::size_t next = 0;  // index of the token that follows the match
        bool known = false;
    };
    [[nodiscard]] Place find(const std::vector<llama_token>& text) const;

    std::vector<std::vector<llama_token>> references_;
    Place last_;                // where the last proposal came from
    std::size_t length_ = 16;   // of the next proposal
    std::size_t rests_ = 0;     // steps to make without a proposal
    std::size_t refusals_ = 0;  // proposals in a row that did not pay
    double plain_ms_ = 0;       // of a decode without a proposal, smoothed
    double saved_ms_ = 0;       // by all proposals so far
    bool given_up_ = false;
};

}  // namespace ltm
