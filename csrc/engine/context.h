// A llama.cpp context: several sequences over one KV, and the passes that write, score and commit.
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

#include "engine/adapter.h"
#include "engine/backend.h"
#include "engine/model.h"
#include "engine/sampler.h"
#include "engine/sequence_cache.h"

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
    int n_seq_max = 16;  // sequences at once: drafts of a pass, and what stays cached
};

struct GenerateOptions {
    SamplingOptions sampling;
    int max_tokens = 320;
    // One of these, or neither for free text. A compiled grammar forces what it determines and lands within max_tokens.
    std::shared_ptr<grammar::MaskCache> grammar;
    std::string llama_grammar;  // GBNF for llama.cpp's own sampler
    bool force = true;          // false: sample every token, also those that the grammar determines
    // Texts that the answer is likely to repeat. What the model would have written is written, only sooner.
    std::vector<std::vector<llama_token>> references;
};

struct Request {
    std::vector<llama_token> prompt;
    GenerateOptions options;
};

enum class Stop { eog, length, cancelled, sink };

struct Generation {
    std::vector<llama_token> tokens;  // what was decoded, the end-of-generation token excluded
    std::string text;                 // their bytes
    Stop stop = Stop::eog;
    int n_prompt = 0;
    int n_reused = 0;     // prompt tokens whose KV was already there
    int n_shared = 0;     // of these, computed in the same pass for another request
    int n_prefilled = 0;  // prompt tokens computed now
    int n_forced = 0;     // tokens that were not sampled because the grammar determined them
    int n_proposed = 0;   // tokens proposed from the references
    int n_copied = 0;     // of these, what the model wrote too
    int n_resampled = 0;  // tokens for which llama.cpp's grammar looked at the whole vocabulary
    double ms_prefill = 0;
    double ms_decode = 0;
    double ms_sample = 0;
};

// Texts whose probability is asked for: `continuations` after `prompt`, each on its own.
struct ScoreRequest {
    std::vector<llama_token> prompt;
    std::vector<std::vector<llama_token>> continuations;
};

struct Score {
    std::vector<std::vector<float>> logprobs;  // natural logarithms, by continuation and token
    int n_reused = 0;
    int n_prefilled = 0;
};

struct Commit {
    int n_reused = 0;
    int n_prefilled = 0;
    bool complete = false;  // false: cancelled; what was computed stays
};

// Receives whole UTF-8 characters of the answer to request `index` as they are written; false stops that answer.
using TextSink = std::function<bool(std::size_t index, std::string_view text)>;
// Asked between tokens and, on CPUs, inside long prefills; true stops the pass.
using StopPoll = std::function<bool()>;

// One user at a time: a second concurrent call throws Error(engine). `cancel` may be called from any thread.
//
// The KV of what passes compute stays cached by (adapter state, tokens), and each pass begins with the longest cached
// prefix. KV that was computed under other adapters than the base state or the pass's own is never used.
class Context {
  public:
    Context(std::shared_ptr<Model> model, const ContextOptions& options);
    ~Context();
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    // Writes up to max_tokens after each prompt, all in common batches. Prompts share what they have in common; each
    // answer has its own grammar, sampler and stream and leaves the batch when it ends. Stopping early (cancel, poll)
    // returns what there is; a sink that says false ends its own answer. `adapters` act on all of them.
    // Throws Error(context_full) if prompts and answers together exceed n_ctx, Error(grammar), Error(engine); after any
    // of them the context is usable.
    [[nodiscard]] std::vector<Generation> generate(const std::vector<Request>& requests, const AdapterState& adapters,
                                                   const TextSink& sink, const StopPoll& poll);

    // Probabilities of given texts, all in common batches. Empty if it was stopped. Throws as generate.
    [[nodiscard]] std::vector<Score> score(const std::vector<ScoreRequest>& requests, const AdapterState& adapters,
                                           const StopPoll& poll);

    // Computes the KV of `tokens` under the base state and makes it the spine, which is evicted last.
    Commit commit(const std::vector<llama_token>& tokens, const StopPoll& poll);

    // Takes tokens [keep, keep + count) of `tokens` out of the cached sequence that begins with them and moves the rest
    // to the front; see SequenceCache::rebase. Returns how many tokens were moved.
    std::size_t rebase(const std::vector<llama_token>& tokens, std::size_t keep, std::size_t count);

    // The adapters under which the spine is computed. What was cached under others is unusable from then on.
    void set_base(const AdapterState& adapters);

    // KV of the longest cached prefix of `tokens` under the base state, as llama.cpp serialises it; n: tokens in it.
    struct Saved {
        std::vector<std::uint8_t> bytes;
        std::size_t n = 0;
    };
    [[nodiscard]] Saved save(const std::vector<llama_token>& tokens);
    // Takes KV that `save` gave for exactly these tokens. False if llama.cpp refuses it; the cache is as before then.
    bool restore(const std::vector<llama_token>& tokens, const std::uint8_t* bytes, std::size_t size);

    // Stops the running pass, between two tokens or inside a prefill; without one, the next. Cleared when a pass ends,
    // and by `resume`: a caller that prepares for a while clears old requests first and misses none after.
    void cancel() noexcept { cancel_.store(true, std::memory_order_relaxed); }
    void resume() noexcept { cancel_.store(false, std::memory_order_relaxed); }

    // Forgets all KV.
    void clear();

    [[nodiscard]] int n_ctx() const noexcept { return static_cast<int>(llama_n_ctx(context_.get())); }
    // As of the end of the last pass; readable from any thread, also while one is running.
    [[nodiscard]] int n_cached() const noexcept { return figures_.cached.load(); }
    [[nodiscard]] int n_sequences() const noexcept { return figures_.sequences.load(); }
    [[nodiscard]] int n_leased() const noexcept { return figures_.leased.load(); }
    // Times that adapters were set on the context, and what that took in all.
    [[nodiscard]] int adapter_changes() const noexcept { return figures_.adapter_changes.load(); }
    [[nodiscard]] double adapter_ms() const noexcept { return figures_.adapter_ms.load(); }
    [[nodiscard]] bool can_shift() const;
    [[nodiscard]] bool can_cut() const;
    [[nodiscard]] const std::shared_ptr<Model>& model() const noexcept { return model_; }

  private:
    friend class Writer;
    friend class Scorer;
    class Memory;
    static constexpr StateId kUnknown = UINT32_MAX;

    // Held during a pass: the lock, and the poll. A pass that can be stopped clears the cancel flag at its end; one
    // that can't (it has no poll) leaves it to the next that can.
    class Pass {
      public:
        explicit Pass(Context& context, const StopPoll* poll = nullptr);
        ~Pass();
        Pass(const Pass&) = delete;
        Pass& operator=(const Pass&) = delete;

      private:
        Context& context_;
        std::unique_lock<std::mutex> lock_;
        LogScope log_;
    };

    // One entry of a batch: tokens at the end of a sequence.
    struct Piece {
        int seq = 0;
        const llama_token* tokens = nullptr;
        std::size_t count = 0;
        std::size_t logits_from = 0;  // logits are computed from this token of the piece on; count: none
        std::size_t row = 0;          // set by decode: place of the piece's first token in the batch
    };
    // Decodes the pieces in one batch and notes them in the cache; false when stopped, nothing of it is cached then.
    // Throws Error(engine), Error(context_full).
    bool decode(std::vector<Piece>& pieces);
    [[nodiscard]] float* logits(std::size_t row);
    // Prefills a branch up to the end of `tokens` but for the last `leave`; false when stopped.
    bool prefill(int seq, const std::vector<llama_token>& tokens, std::size_t leave);
    void apply(const AdapterState& adapters);
    [[nodiscard]] StateId id_of(const AdapterState& adapters);
    void check_tokens(const std::vector<llama_token>& tokens, const char* what) const;
    // Tokens that these sequences take together, common beginnings counted once; throws Error(context_full) if they and
    // `more` exceed n_ctx. Returns the former.
    std::size_t check_room(std::vector<const std::vector<llama_token>*> prompts, std::size_t more) const;
    [[nodiscard]] bool stopping();

    struct Free {
        void operator()(llama_context* context) const noexcept {
            const LogScope scope;
            llama_free(context);
        }
    };
    std::shared_ptr<Model> model_;
    std::unique_ptr<llama_context, Free> context_;
    std::unique_ptr<Memory> memory_;
    std::unique_ptr<SequenceCache> cache_;
    std::vector<AdapterState> states_;  // by StateId; the first one is no adapters
    StateId base_ = 0;
    StateId applied_ = 0;  // kUnknown: llama.cpp stopped half-way through a change
    int n_batch_;
    int n_outputs_;  // rows of logits in one batch, at most
    int n_seq_max_;
    int adapter_changes_ = 0;
    double adapter_ms_ = 0;
    struct Figures {
        std::atomic<int> cached{0};
        std::atomic<int> sequences{0};
        std::atomic<int> leased{0};
        std::atomic<int> adapter_changes{0};
        std::atomic<double> adapter_ms{0};
    };
    Figures figures_;
    std::mutex busy_;
    std::atomic<bool> cancel_{false};
    const StopPoll* poll_ = nullptr;
    bool polled_stop_ = false;
};

[[nodiscard]] const char* stop_name(Stop stop) noexcept;

}  // namespace ltm
