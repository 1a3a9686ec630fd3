// A llama.cpp context with one sequence, and the decode loop.
#pragma once

#include <llama.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model.h"
#include "engine/sampler.h"

namespace ltm {

struct ContextOptions {
    int n_ctx = 4096;            // tokens; 0: what the model was trained on
    int n_batch = 512;           // tokens handed to llama.cpp at once
    int n_threads = 0;           // 0: llama.cpp's default
    int n_threads_batch = 0;     // 0: as n_threads
    int flash_attn = -1;         // -1: llama.cpp decides, 0: off, 1: on
    std::string type_k = "f16";  // ggml type names of the KV cache
    std::string type_v = "f16";
    bool offload_kqv = true;
};

struct GenerateOptions {
    SamplingOptions sampling;
    int max_tokens = 320;
    // One of these, or neither for free text. A compiled grammar forces what it determines and lands within max_tokens.
    std::shared_ptr<grammar::MaskCache> grammar;
    std::string llama_grammar;  // GBNF for llama.cpp's own sampler
    bool force = true;          // false: sample every token, also those that the grammar determines
};

enum class Stop { eog, length, cancelled, sink };

struct Generation {
    std::vector<llama_token> tokens;  // what was decoded, the end-of-generation token excluded
    std::string text;                 // their bytes
    Stop stop = Stop::eog;
    int n_prompt = 0;
    int n_reused = 0;     // prompt tokens whose KV was already there
    int n_prefilled = 0;  // prompt tokens computed now
    int n_forced = 0;     // tokens that were not sampled because the grammar determined them
    int n_resampled = 0;  // tokens for which llama.cpp's grammar looked at the whole vocabulary
    double ms_prefill = 0;
    double ms_decode = 0;
    double ms_sample = 0;
};

// Receives whole UTF-8 characters as they are written; false stops the decode.
using TextSink = std::function<bool(std::string_view)>;
// Asked between tokens and, on CPUs, inside long prefills; true stops the decode.
using StopPoll = std::function<bool()>;

// One user at a time: a second concurrent call throws Error(engine). `cancel` may be called from any thread.
class Context {
  public:
    Context(std::shared_ptr<Model> model, const ContextOptions& options);
    ~Context();
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    // Writes up to max_tokens after `prompt`. What the KV already holds of the prompt is reused. Stopping early
    // (cancel, sink, poll) returns what there is. Throws Error(context_full) if prompt + max_tokens exceed n_ctx,
    // Error(grammar), Error(engine); after any of them the context is usable.
    [[nodiscard]] Generation generate(const std::vector<llama_token>& prompt, const GenerateOptions& options,
                                      const TextSink& sink, const StopPoll& poll);

    // Stops the running generate, between two tokens or inside a prefill; without one, the next. Cleared when a
    // generate ends, and by `resume`: a caller that prepares for a while clears old requests first and misses none
    // after.
    void cancel() noexcept { cancel_.store(true, std::memory_order_relaxed); }
    void resume() noexcept { cancel_.store(false, std::memory_order_relaxed); }

    // Forgets all KV.
    void clear();

    [[nodiscard]] int n_ctx() const noexcept { return static_cast<int>(llama_n_ctx(context_.get())); }
    [[nodiscard]] int n_cached() const noexcept { return static_cast<int>(cached_.size()); }
    [[nodiscard]] const std::shared_ptr<Model>& model() const noexcept { return model_; }

  private:
    // Keeps the longest common prefix of the KV and `prompt`, leaving at least one token to compute; returns its
    // length.
    int reuse_prefix(const std::vector<llama_token>& prompt);
    // Decodes tokens[from, to) and appends them to the cache; false when stopped. Throws Error(engine).
    bool decode(const llama_token* tokens, int count);
    void drop_after(std::size_t keep);
    [[nodiscard]] bool stopping();

    struct Free {
        void operator()(llama_context* context) const noexcept { llama_free(context); }
    };
    std::shared_ptr<Model> model_;
    std::unique_ptr<llama_context, Free> context_;
    std::vector<llama_token> cached_;  // tokens whose KV is in sequence 0, in order
    int n_batch_;
    std::mutex busy_;
    std::atomic<bool> cancel_{false};
    const StopPoll* poll_ = nullptr;
    bool polled_stop_ = false;
};

[[nodiscard]] const char* stop_name(Stop stop) noexcept;

}  // namespace ltm
