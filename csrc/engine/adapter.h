// LoRA adapters and control vectors, and the comparable value that says which of them act.
#pragma once

#include <llama.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/model.h"

namespace ltm {

// A LoRA in memory, made for one model.
class Adapter {
  public:
    // Throws Error(model) with llama.cpp's reason.
    static std::shared_ptr<Adapter> load(std::shared_ptr<Model> model, const std::string& path);
    ~Adapter();
    Adapter(const Adapter&) = delete;
    Adapter& operator=(const Adapter&) = delete;

    [[nodiscard]] llama_adapter_lora* handle() const noexcept { return handle_; }
    [[nodiscard]] const Model& model() const noexcept { return *model_; }

  private:
    Adapter(std::shared_ptr<Model> model, llama_adapter_lora* handle) : model_(std::move(model)), handle_(handle) {}
    std::shared_ptr<Model> model_;
    llama_adapter_lora* handle_;
};

// Directions added to the hidden states: float32 [n_layer - 1, n_embd], from layer 1 on, as llama.cpp takes them.
struct ControlVector {
    std::vector<float> data;
    int n_embd = 0;
    bool operator==(const ControlVector&) const = default;
};

// Scales are kept in steps, so that equal mixes compare equal.
struct AdapterState {
    static constexpr int kSteps = 256;  // per 1.0

    struct Lora {
        std::shared_ptr<Adapter> adapter;
        int scale = 0;  // in steps
        bool operator==(const Lora&) const = default;
    };
    std::vector<Lora> loras;
    std::shared_ptr<const ControlVector> control;
    int control_scale = 0;  // in steps

    // Drops what has scale 0 and puts the rest into one order. Throws Error(invalid_argument) for an adapter given
    // twice, for scales that are not finite or above 64 and for directions that are not finite.
    static AdapterState make(std::vector<std::pair<std::shared_ptr<Adapter>, float>> loras,
                             std::shared_ptr<const ControlVector> control, float control_scale);
    // Control vectors are compared by what they hold.
    bool operator==(const AdapterState& other) const;
};

}  // namespace ltm
