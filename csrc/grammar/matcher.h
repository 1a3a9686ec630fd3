// A grammar's state along one decode: what may come next, what must come next, how far it is to the end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/mask_cache.h"

namespace ltm::grammar {

// Tokenizes bytes as they would be in the middle of a text: no special tokens parsed or added, no blank put in front.
using Tokenize = std::function<std::vector<std::uint32_t>(std::string_view)>;

// Tokens that need no sampling.
struct ForcedTokens {
    std::size_t replace = 0;            // take back this many of the last accepted tokens first
    std::vector<std::uint32_t> tokens;  // then these, in this order
};

// Copying is cheap and gives an independent matcher over the same cache.
class Matcher {
  public:
    explicit Matcher(std::shared_ptr<MaskCache> cache);

    [[nodiscard]] const MaskCache& cache() const noexcept { return *cache_; }
    [[nodiscard]] const std::vector<std::uint32_t>& tokens() const noexcept { return tokens_; }
    // True after an end token.
    [[nodiscard]] bool finished() const noexcept { return finished_; }
    // True if the document may end here.
    [[nodiscard]] bool is_complete() const { return cache_->complete(state()); }
    // True if nothing may follow but the end.
    [[nodiscard]] bool is_closed() const { return !cache_->open(state()); }

    // Tokens allowed next: bits of uint32[ceil(n_vocab / 32)]. End tokens are allowed exactly when the document is
    // complete. After an end token nothing is.
    [[nodiscard]] MaskPtr mask() const;
    // Of those, only the ones after which a complete document is reached within `budget` - 1 further tokens. End tokens
    // cost nothing. Holds as long as `budget` >= cost_to_end(): then some token is allowed, and so on to the end.
    [[nodiscard]] MaskPtr mask(std::uint32_t budget) const;
    [[nodiscard]] bool allows(std::uint32_t token) const;
    // Takes a token. False, and nothing changes, if it is not allowed.
    bool accept(std::uint32_t token);
    // Takes back the last n tokens. Throws Error(invalid_argument) if there are fewer.
    void rollback(std::size_t n);
    void reset();
    // How many of these tokens, in order, would be accepted.
    [[nodiscard]] std::size_t validate(std::span<const std::uint32_t> tokens) const;

    // Tokens that suffice to end from here, end token not counted; 0 if the document is complete. An upper bound on the
    // least number. kNever if the vocabulary can't write the grammar's text.
    [[nodiscard]] std::uint32_t cost_to_end() const { return cache_->cost(state()); }

    // Bytes that come next in every document that begins like this one.
    [[nodiscard]] std::string forced_bytes() const;
    // The tokens in which the tokenizer would write these bytes whatever follows: a token that a longer one could
    // replace once more text is there is held back. If the last accepted token itself would be written otherwise (a
    // sampled `"` where the tokenizer has `"\n`), up to `may_replace` tokens are given back to be replaced.
    // With a budget, stops before a token after which the end could not be reached in time.
    [[nodiscard]] ForcedTokens forced_tokens(const Tokenize& tokenize, std::size_t may_replace = 0,
                                             std::optional<std::uint32_t> budget = std::nullopt) const;

  private:
    [[nodiscard]] const State& state() const noexcept { return states_.back(); }

    std::shared_ptr<MaskCache> cache_;
    std::vector<State> states_;  // after 0, 1, … tokens
    std::vector<std::uint32_t> tokens_;
    bool finished_ = false;
};

}  // namespace ltm::grammar
