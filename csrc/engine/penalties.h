// Repetition penalties, applied to the few tokens that they concern.
#pragma once

#include <llama.h>

#include <cstddef>
#include <deque>
#include <unordered_map>

namespace ltm {

// The same arithmetic as llama.cpp's penalties sampler (src/llama-sampler.cpp; Keskar et al. 2019, arXiv:1909.05858,
// with negative logits multiplied), which looks up every token of the vocabulary in its window; here the window is
// walked.
class Penalties {
  public:
    // repeat > 0, 1 is off; frequency and presence: 0 is off; last_n: tokens looked back at, 0 is off.
    Penalties(float repeat, float frequency, float presence, std::size_t last_n) noexcept
        : repeat_(repeat), frequency_(frequency), presence_(presence), last_n_(last_n) {}

    void accept(llama_token token);
    // Changes the logits (float[n_vocab]) of the tokens in the window.
    void apply(float* logits) const;

  private:
    float repeat_;
    float frequency_;
    float presence_;
    std::size_t last_n_;
    std::deque<llama_token> window_;
    std::unordered_map<llama_token, int> counts_;
};

}  // namespace ltm
