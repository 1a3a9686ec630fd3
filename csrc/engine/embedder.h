// Texts to vectors: a llama.cpp context of its own over an embedding model or a decoder.
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

#include "engine/backend.h"
#include "engine/model.h"

namespace ltm {

struct EmbedderOptions {
    int n_ctx = 0;        // most tokens of one text; 0: what the model was trained on, at most 2048
    int n_batch = 256;    // tokens computed at once; raised to the longest text where the model needs it whole
    int n_seq_max = 64;   // texts computed at once
    int n_threads = 0;    // 0: llama.cpp's default
    std::string pooling;  // mean, cls or last; empty: as the file says, mean where it says nothing
};

struct Embeddings {
    std::vector<float> values;  // [n, dim], rows of length 1
    int n_texts = 0;
    int n_tokens = 0;  // computed
    int n_cut = 0;     // texts that were longer than the context; their beginnings were embedded
    int n_batches = 0;
};

// One user at a time: a second concurrent call throws Error(engine). `cancel` may be called from any thread.
class Embedder {
  public:
    // Throws Error(model) where the model can't embed, Error(invalid_argument), Error(engine).
    Embedder(std::shared_ptr<Model> model, const EmbedderOptions& options);
    Embedder(const Embedder&) = delete;
    Embedder& operator=(const Embedder&) = delete;

    // The vectors of UTF-8 texts, in their order. Throws Error(invalid_argument) for a text without any token,
    // Error(cancelled) when stopped, Error(engine); after any of them the embedder is usable.
    [[nodiscard]] Embeddings embed(const std::vector<std::string>& texts, const std::function<bool()>& poll);

    // The tokens that stand for a text, special ones and the cut included.
    [[nodiscard]] std::vector<llama_token> tokens(std::string_view text, bool* cut = nullptr) const;

    // Stops the running embed; without one, the next.
    void cancel() noexcept { cancel_.store(true, std::memory_order_relaxed); }
    void resume() noexcept { cancel_.store(false, std::memory_order_relaxed); }

    [[nodiscard]] int dim() const noexcept { return dim_; }
    [[nodiscard]] int n_ctx() const noexcept { return n_ctx_; }
    [[nodiscard]] const char* pooling() const noexcept;
    [[nodiscard]] const std::shared_ptr<Model>& model() const noexcept { return model_; }

  private:
    struct Text {
        std::size_t index;  // of the caller
        std::vector<llama_token> tokens;
    };
    void create(const EmbedderOptions& options);
    // Computes a few texts as sequences of one batch (or, if the model keeps KV, of consecutive batches).
    void compute(const Text* first, std::size_t count, Embeddings& out);
    void pass(llama_batch& batch, const Text* first);
    void take_states(const llama_batch& batch, const Text* first);
    [[nodiscard]] bool stopping();

    struct Free {
        void operator()(llama_context* context) const noexcept {
            const LogScope scope;
            llama_free(context);
        }
    };
    std::shared_ptr<Model> model_;
    std::unique_ptr<llama_context, Free> context_;
    enum llama_pooling_type pooling_ = LLAMA_POOLING_TYPE_MEAN;
    bool whole_ = true;  // a text must stand in one batch, and llama.cpp pools; else it may be split, and we pool
    int dim_ = 0;
    int n_ctx_ = 0;
    int n_batch_ = 0;
    int n_seq_max_ = 0;
    std::vector<std::vector<double>> sums_;  // of the states so far, by sequence
    std::mutex busy_;
    std::atomic<bool> cancel_{false};
    const std::function<bool()>* poll_ = nullptr;
    bool polled_stop_ = false;
};

}  // namespace ltm
