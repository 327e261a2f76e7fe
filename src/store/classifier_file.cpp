#include "store/classifier_file.h"

#include <nlohmann/json.hpp>

#include "store/metadata.h"
#include "store/parameters.h"

namespace linnet {
namespace {

constexpr const char* classifier_key = "linnet.classifier";

ClassifierConfig read_config(const Weights& weights) {
  const auto found = weights.metadata().find(classifier_key);
  check(found != weights.metadata().end(),
        "{}: this is no classifier (its metadata lack \"{}\"); \"linnet eval train-classifier\" makes one",
        weights.source(), classifier_key);
  return weights.naming_source([&] { return classifier_config_from_json(found->second); });
}

}  // namespace

LoadedClassifier load_classifier(const std::filesystem::path& path, const Device& device) {
  const Weights weights = Weights::open(path);
  const ClassifierConfig config = read_config(weights);
  LoadedClassifier result;
  result.class_names = read_class_names(weights, config.num_classes);
  result.model = std::make_unique<Classifier>(config);
  const nn::ParameterList parameters = nn::all_parameters(*result.model);
  read_parameters(parameters, weights);
  result.fingerprint = fingerprint(parameters);
  nn::freeze(*result.model);
  nn::move_to(*result.model, device);
  result.device = device;
  return result;
}

void save_classifier(const std::filesystem::path& path, Classifier& model,
                     const std::vector<std::string>& class_names,
                     const std::map<std::string, std::string>& extra) {
  std::map<std::string, std::string> metadata = extra;
  metadata[classifier_key] = to_json(model.config());
  if (!class_names.empty()) metadata[classes_key] = nlohmann::json(class_names).dump();
  write_safetensors(path, values_of(nn::all_parameters(model), DType::bf16), metadata);
}

}  // namespace linnet
