#include "engine/embedder.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <numeric>

#include "engine/backend.h"
#include "support/error.h"

namespace ltm {
namespace {

constexpr int kLongest = 2048;      // tokens of one text, if nothing else is asked for
constexpr int kMostSequences = 64;  // llama.cpp allows 256; more than this gains nothing
constexpr int kBytesPerToken = 64;  // longer text than this many bytes for each token of the context isn't tokenised

enum llama_pooling_type pooling_of(const std::string& name) {
    if (name == "mean") return LLAMA_POOLING_TYPE_MEAN;
    if (name == "cls") return LLAMA_POOLING_TYPE_CLS;
    if (name == "last") return LLAMA_POOLING_TYPE_LAST;
    throw Error(ErrorCode::invalid_argument, "pooling: '" + name + "' is not one of mean, cls, last");
}

std::string meta(const llama_model* model, const std::string& key) {
    char buffer[128];
    const int length = llama_model_meta_val_str(model, key.c_str(), buffer, sizeof buffer);
    return length < 0 ? std::string() : std::string(buffer);
}

std::string arch_meta(const llama_model* model, const char* key) {
    return meta(model, meta(model, "general.architecture") + "." + key);
}

// The beginning of `text` in at most `limit` bytes, no character split.
std::string_view head(std::string_view text, std::size_t limit) {
    if (text.size() <= limit) return text;
    while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0U) == 0x80U) --limit;
    return text.substr(0, limit);
}

class Batch {
  public:
    explicit Batch(int n_tokens) : batch_(llama_batch_init(n_tokens, 0, 1)) {}
    ~Batch() { llama_batch_free(batch_); }
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;

    void add(llama_token token, llama_pos position, llama_seq_id sequence) {
        const int i = batch_.n_tokens++;
        batch_.token[i] = token;
        batch_.pos[i] = position;
        batch_.n_seq_id[i] = 1;
        batch_.seq_id[i][0] = sequence;
        batch_.logits[i] = 1;
    }
    llama_batch& get() noexcept { return batch_; }

  private:
    llama_batch batch_;
};

// Scales to length 1. False for a vector that has no direction.
bool normalise(const double* from, int dim, float* to) {
    const double length = std::sqrt(std::inner_product(from, from + dim, from, 0.0));
    if (!std::isfinite(length) || length <= 0) return false;
    std::transform(from, from + dim, to, [length](double value) { return static_cast<float>(value / length); });
    return true;
}

}  // namespace

const char* Embedder::pooling() const noexcept {
    return pooling_ == LLAMA_POOLING_TYPE_CLS ? "cls" : pooling_ == LLAMA_POOLING_TYPE_LAST ? "last" : "mean";
}

Embedder::Embedder(std::shared_ptr<Model> model, const EmbedderOptions& options) : model_(std::move(model)) {
    if (options.n_ctx < 0 || options.n_batch < 1 || options.n_seq_max < 1) {
        throw Error(ErrorCode::invalid_argument, "embedder: n_ctx must be 0 or more, n_batch and n_seq_max 1 or more");
    }
    llama_model* handle = model_->handle();
    const std::string& path = model_->options().path;
    if (model_->options().vocab_only || llama_model_n_embd(handle) <= 0 || llama_model_size(handle) == 0) {
        throw Error(ErrorCode::model,
                    path + ": has a vocabulary and no weights, so it can't embed; name an embedding model");
    }
    if (llama_model_has_encoder(handle) && llama_model_has_decoder(handle)) {
        throw Error(ErrorCode::model, path + ": is an encoder-decoder model, which can't embed here; name another");
    }
    const std::string declared = arch_meta(handle, "pooling_type");
    if (declared == "4") {
        throw Error(ErrorCode::model, path + ": is a reranker: it scores pairs of texts; name an embedding model");
    }
    if (!options.pooling.empty()) {
        pooling_ = pooling_of(options.pooling);
    } else if (declared == "2") {
        pooling_ = LLAMA_POOLING_TYPE_CLS;
    } else if (declared == "3") {
        pooling_ = LLAMA_POOLING_TYPE_LAST;
    }
    const int trained = std::max(1, llama_model_n_ctx_train(handle));
    n_ctx_ = std::min(options.n_ctx > 0 ? options.n_ctx : kLongest, trained);
    n_seq_max_ = std::min(options.n_seq_max, kMostSequences);
    dim_ = llama_model_n_embd_out(handle);
    // Attention to both sides needs the whole text at once.
    whole_ = llama_model_has_encoder(handle) || arch_meta(handle, "attention.causal") == "false";
    create(options);
    if (!whole_ && llama_get_memory(context_.get()) == nullptr) {
        whole_ = true;  // the file didn't say so, but nothing is kept between two batches
        create(options);
    }
    sums_.assign(static_cast<std::size_t>(n_seq_max_), {});
}

void Embedder::create(const EmbedderOptions& options) {
    n_batch_ = whole_ ? std::max(options.n_batch, n_ctx_) : std::min(options.n_batch, 128);
    llama_context_params params = llama_context_default_params();
    params.embeddings = true;
    params.pooling_type = whole_ ? pooling_ : LLAMA_POOLING_TYPE_NONE;
    // What causal models read of several texts lies in one cache, which holds the longest one in any case.
    params.n_ctx = static_cast<uint32_t>(std::max(n_ctx_, n_batch_));
    params.n_batch = static_cast<uint32_t>(n_batch_);
    params.n_ubatch = static_cast<uint32_t>(n_batch_);
    params.n_seq_max = static_cast<uint32_t>(n_seq_max_);
    params.kv_unified = true;
    params.no_perf = true;
    if (options.n_threads > 0) params.n_threads = params.n_threads_batch = options.n_threads;
    params.abort_callback = [](void* self) { return static_cast<Embedder*>(self)->stopping(); };
    params.abort_callback_data = this;
    context_.reset();
    const LogScope scope;
    clear_last_error();
    try {
        context_.reset(llama_init_from_model(model_->handle(), params));
    } catch (const std::exception& error) {
        throw Error(ErrorCode::engine, std::string("embedder: llama.cpp can't create its context: ") + error.what());
    }
    if (!context_) {
        const std::string reason = last_error();
        throw Error(ErrorCode::engine,
                    "embedder: llama.cpp can't create its context: " + (reason.empty() ? "no reason given" : reason));
    }
}

bool Embedder::stopping() {
    if (cancel_.load(std::memory_order_relaxed)) return true;
    if (poll_ != nullptr && *poll_ && (*poll_)()) polled_stop_ = true;
    return polled_stop_;
}

std::vector<llama_token> Embedder::tokens(std::string_view text, bool* cut) const {
    // What can't matter isn't tokenised: a megabyte would take longer than its vector.
    const std::string_view used = head(text, static_cast<std::size_t>(n_ctx_) * kBytesPerToken);
    std::vector<llama_token> found = model_->tokenize(used, true, false);
    const auto limit = static_cast<std::size_t>(n_ctx_);
    const bool longer = found.size() > limit;
    if (longer) {
        // The token that ends a text ([SEP], </s>) is kept.
        const llama_token last = found.back();
        found.resize(limit);
        if (llama_vocab_is_control(model_->vocab(), last)) found.back() = last;
    }
    if (cut != nullptr) *cut = longer || used.size() < text.size();
    return found;
}

Embeddings Embedder::embed(const std::vector<std::string>& texts, const std::function<bool()>& poll) {
    const std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
    if (!lock.owns_lock()) throw Error(ErrorCode::engine, "embedder: in use by another thread");
    const LogScope scope;
    struct Reset {
        Embedder& self;
        ~Reset() {
            self.poll_ = nullptr;
            self.resume();
        }
    } const reset{*this};
    poll_ = &poll;
    polled_stop_ = false;

    Embeddings out;
    out.n_texts = static_cast<int>(texts.size());
    out.values.resize(texts.size() * static_cast<std::size_t>(dim_));
    std::vector<Text> all;
    all.reserve(texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
        if (stopping()) throw Error(ErrorCode::cancelled, "embedding was cancelled");
        bool cut = false;
        all.push_back({i, tokens(texts[i], &cut)});
        if (cut) ++out.n_cut;
        if (all.back().tokens.empty()) {
            throw Error(ErrorCode::invalid_argument,
                        "text " + std::to_string(i) + ": is empty for this model, so it has no vector");
        }
        out.n_tokens += static_cast<int>(all.back().tokens.size());
    }
    // Texts of like length together: batches come out nearly full.
    std::stable_sort(all.begin(), all.end(),
                     [](const Text& a, const Text& b) { return a.tokens.size() < b.tokens.size(); });
    // Whole texts attend to all others of their batch, if only to find them masked: past some size that costs more
    // than a fuller batch gains.
    const std::size_t room = static_cast<std::size_t>(std::min(n_batch_, 256));
    for (std::size_t first = 0; first < all.size();) {
        std::size_t count = 0;
        std::size_t used = 0;
        while (first + count < all.size() && count < static_cast<std::size_t>(n_seq_max_)) {
            const std::size_t more = all[first + count].tokens.size();
            if (count > 0 && used + more > room) break;
            used += more;
            ++count;
        }
        compute(&all[first], count, out);
        first += count;
    }
    return out;
}

void Embedder::compute(const Text* first, std::size_t count, Embeddings& out) {
    struct Clear {
        llama_context* context;
        ~Clear() {
            if (llama_memory_t memory = llama_get_memory(context)) llama_memory_clear(memory, false);
        }
    } const clear{context_.get()};
    for (std::size_t s = 0; s < count; ++s) sums_[s].assign(static_cast<std::size_t>(dim_), 0.0);
    Batch batch(n_batch_);
    for (std::size_t s = 0; s < count; ++s) {
        const std::vector<llama_token>& tokens = first[s].tokens;
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            batch.add(tokens[i], static_cast<llama_pos>(i), static_cast<llama_seq_id>(s));
            if (batch.get().n_tokens == n_batch_) pass(batch.get(), first), ++out.n_batches;
        }
    }
    if (batch.get().n_tokens > 0) pass(batch.get(), first), ++out.n_batches;
    for (std::size_t s = 0; s < count; ++s) {
        float* row = out.values.data() + first[s].index * static_cast<std::size_t>(dim_);
        if (!normalise(sums_[s].data(), dim_, row)) {
            throw Error(ErrorCode::engine,
                        "embedder: the vector of text " + std::to_string(first[s].index) + " has no direction");
        }
    }
}

void Embedder::pass(llama_batch& batch, const Text* first) {
    if (stopping()) throw Error(ErrorCode::cancelled, "embedding was cancelled");
    int status = 0;
    try {
        const bool encode = llama_model_has_encoder(model_->handle());
        status = encode ? llama_encode(context_.get(), batch) : llama_decode(context_.get(), batch);
    } catch (const std::exception& error) {
        throw Error(ErrorCode::engine, std::string("embedder: llama.cpp stopped: ") + error.what());
    }
    if (status == 2) throw Error(ErrorCode::cancelled, "embedding was cancelled");
    if (status != 0) {
        throw Error(ErrorCode::engine, "embedder: llama.cpp returned " + std::to_string(status) + " for a batch of " +
                                           std::to_string(batch.n_tokens) + " tokens");
    }
    take_states(batch, first);
    batch.n_tokens = 0;
}

void Embedder::take_states(const llama_batch& batch, const Text* first) {
    const auto width = static_cast<std::size_t>(dim_);
    for (int i = 0; i < batch.n_tokens; ++i) {
        const llama_seq_id sequence = batch.seq_id[i][0];
        const auto s = static_cast<std::size_t>(sequence);
        const bool begins = batch.pos[i] == 0;
        const bool ends = static_cast<std::size_t>(batch.pos[i]) + 1 == first[s].tokens.size();
        const bool wanted = whole_                                ? ends
                            : pooling_ == LLAMA_POOLING_TYPE_CLS  ? begins
                            : pooling_ == LLAMA_POOLING_TYPE_LAST ? ends
                                                                  : true;
        if (!wanted) continue;
        const float* state =
            whole_ ? llama_get_embeddings_seq(context_.get(), sequence) : llama_get_embeddings_ith(context_.get(), i);
        if (state == nullptr) throw Error(ErrorCode::engine, "embedder: llama.cpp returned no embedding");
        std::transform(state, state + width, sums_[s].begin(), sums_[s].begin(),
                       [](float value, double sum) { return sum + static_cast<double>(value); });
    }
}

}  // namespace ltm
