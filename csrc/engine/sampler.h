// Choosing one token from logits: llama.cpp's sampler chain, under an optional constraint.
#pragma once

#include <llama.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/constraint.h"
#include "engine/model.h"
#include "engine/penalties.h"

namespace ltm {

// llama.cpp's names and meanings. A value that switches its step off stands beside it.
struct SamplingOptions {
    float temperature = 0.7F;        // 0: the likeliest token
    int top_k = 0;                   // 0: off
    float top_p = 1.0F;              // 1: off
    float min_p = 0.0F;              // 0: off
    float repeat_penalty = 1.0F;     // 1: off
    float frequency_penalty = 0.0F;  // 0: off
    float presence_penalty = 0.0F;   // 0: off
    int repeat_last_n = 64;          // tokens looked back at; -1: all that fit
    float dry_multiplier = 0.0F;     // 0: off
    float dry_base = 1.75F;
    int dry_allowed_length = 2;
    int dry_last_n = -1;  // tokens looked back at; -1: the model's training context
    std::vector<std::string> dry_breakers = {"\n", ":", "\"", "*"};
    std::uint32_t seed = 0;
};

class Sampler {
  public:
    Sampler(const Model& model, const SamplingOptions& options);

    // Picks a token from `logits` (float[n_vocab], changed by the penalties) that `constraint` (or null) allows, such
    // that the document can end within `budget` tokens. Where the constraint has a mask, refused tokens never reach the
    // chain. Where it has none, the unconstrained choice is checked first and the whole vocabulary looked at only if
    // that is refused; a refused draw is drawn again from what remains, which gives the same distribution. Throws
    // Error(grammar) if nothing at all is allowed.
    [[nodiscard]] llama_token sample(float* logits, Constraint* constraint, int budget);
    // Takes a token into the penalties' windows.
    void accept(llama_token token);

    [[nodiscard]] int resampled() const noexcept { return resampled_; }

  private:
    void fill(const float* logits);
    void fill(const float* logits, const grammar::Mask& mask);
    [[nodiscard]] llama_token pick();

    struct Free {
        void operator()(llama_sampler* sampler) const noexcept { llama_sampler_free(sampler); }
    };
    std::unique_ptr<llama_sampler, Free> chain_;
    Penalties penalties_;
    std::vector<llama_token_data> candidates_;
    llama_token_data_array array_{};
    int n_vocab_;
    int resampled_ = 0;
};

}  // namespace ltm
