// Models small enough that a test paints with them in no time. Their weights are random, so their pictures are
// noise.
#pragma once

#include <filesystem>
#include <string>

#include "models/dit.h"

namespace linnet::test {

/// Draws every parameter, also those that start at zero: by its name alone.
template <class Module>
void draw_all(Module& module) {
  module.visit("", [](const std::string& name, nn::Parameter& parameter) {
    if (!parameter.learned()) return;
    Generator generator(nn::hash_name(name));
    if (parameter.init.kind == nn::Init::Kind::zero) parameter.init = nn::Init::normal(0.05f);
    nn::draw(parameter, generator);
  });
}

/// 16x16 pixels, 64 classes with the names of the data set `shapes`.
DiTConfig small_config();
/// Writes such a model with draw_all(), and returns the path.
std::string write_small_model(const std::filesystem::path& path, const DiTConfig& config = small_config(),
                              bool class_names = true);

/// Lays a dump's model out as others' programs do: folder/file, and the config.json that its metadata hold.
void copy_model(const std::string& dump, const std::filesystem::path& folder, const std::string& file);

/// A model of texts as the Hub lays it out: a transformer, an autoencoder, a text encoder and its tokenizer.
void copy_text_model(const std::filesystem::path& folder);
/// Inception with drawn weights: a hundred megabytes.
void write_inception(const std::filesystem::path& path);

/// A file of tests/data.
std::string data_file(const std::string& name);

}  // namespace linnet::test
