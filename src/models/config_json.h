// Configurations as JSON, of which each says its fields once: a function fields(config, visitor) calls
//   visitor.value("depth", config.depth)                          a number, a truth or a list of these
//   visitor.value("qk_norm", config.qk_norm, false)               left out where it is the usual one
//   visitor.named("mixer", config.mixer, &mixer_from_name)        an enumeration, by name_of()
//   visitor.named("prediction", ..., &..., Prediction::epsilon)   left out where it is the usual one
// and is walked to write a configuration and to read it.
#pragma once

#include <nlohmann/json.hpp>

#include <type_traits>

#include "core/error.h"
#include "core/printable.h"

namespace linnet {

/// Which settings are written.
enum class Written : uint8_t {
  needed,
  all
};  ///< needed: without those that have their usual value and may be left out

class ConfigWriter {
 public:
  explicit ConfigWriter(Written written) : all_(written == Written::all) {}
  template <class T>
  void value(const char* key, const T& member) {
    json_[key] = member;
  }
  template <class T>
  void value(const char* key, const T& member, const std::type_identity_t<T>& usual) {
    if (all_ || member != usual) value(key, member);
  }
  template <class T, class FromName>
  void named(const char* key, const T& member, FromName /*from_name*/) {
    json_[key] = name_of(member);
  }
  template <class T, class FromName>
  void named(const char* key, const T& member, FromName from_name, T usual) {
    if (all_ || member != usual) named(key, member, from_name);
  }
  nlohmann::ordered_json& json() { return json_; }

 private:
  bool all_;
  nlohmann::ordered_json json_;
};

/// What is missing or of another type throws the library's exception.
class ConfigReader {
 public:
  explicit ConfigReader(const nlohmann::json& json) : json_(json) {}
  template <class T>
  void value(const char* key, T& member) {
    json_.at(key).get_to(member);
  }
  template <class T>
  void value(const char* key, T& member, const std::type_identity_t<T>& usual) {
    member = usual;
    if (json_.contains(key)) value(key, member);
  }
  template <class T, class FromName>
  void named(const char* key, T& member, FromName from_name) {
    member = from_name(json_.at(key).get<std::string>());
  }
  template <class T, class FromName>
  void named(const char* key, T& member, FromName from_name, T usual) {
    member = usual;
    if (json_.contains(key)) named(key, member, from_name);
  }

 private:
  const nlohmann::json& json_;
};

/// Whose configuration it is.
struct ConfigKind {
  const char* type;        ///< what its entry "model" says: "dit"
  const char* of_another;  ///< what one of another type is: "no classifier"
  const char* what;        ///< "model", "classifier"
};

template <class Config, class Fields>
std::string config_to_json(const Config& config, const ConfigKind& kind, Fields fields,
                           Written written = Written::needed) {
  ConfigWriter writer(written);
  writer.value("model", std::string(kind.type));
  fields(config, writer);
  return writer.json().dump();
}

/// Throws Error on anything that is not a valid configuration.
template <class Config, class Fields>
Config config_from_json(std::string_view text, const ConfigKind& kind, Fields fields) {
  try {
    const auto json = nlohmann::json::parse(text);
    const auto type = json.at("model").get<std::string>();
    check(type == kind.type, "a model of type \"{}\" is {}", printable(type), kind.of_another);
    Config config;
    ConfigReader reader(json);
    fields(config, reader);
    config.validate();
    return config;
  } catch (const UsageError& error) {  // nobody's usage is wrong: the file is
    fail("{}", error.what());
  } catch (const nlohmann::json::exception& error) {
    fail("the {}'s configuration is not readable ({})", kind.what, error.what());
  }
}

}  // namespace linnet
