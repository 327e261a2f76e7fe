#include "arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <type_traits>

#include "core/error.h"
#include "io/text.h"

namespace linnet::app {

const Argument& Argument::required() const {
  option_->required();
  return *this;
}
const Argument& Argument::type_name(const std::string& name) const {
  option_->type_name(name);
  return *this;
}
const Argument& Argument::capture_default_str() const {
  option_->capture_default_str();
  return *this;
}
const Argument& Argument::in_range(double low, double high) const {
  const bool whole = low == static_cast<double>(static_cast<int64_t>(low)) && high < 1e15 &&
                     high == static_cast<double>(static_cast<int64_t>(high));
  if (whole)  // whose sentence names whole numbers
    option_->check(CLI::Range(static_cast<int64_t>(low), static_cast<int64_t>(high)));
  else
    option_->check(CLI::Range(low, high));
  return *this;
}
const Argument& Argument::one_of(const std::vector<std::string>& values) const {
  option_->check(CLI::IsMember(values));
  return *this;
}
const Argument& Argument::delimiter(char separator) const {
  option_->delimiter(separator);
  return *this;
}
const Argument& Argument::one_each() const {
  option_->allow_extra_args(false);
  return *this;
}
const Argument& Argument::as_they_stand() const {
  // CLI11 takes lists apart where there may be more values than expected: so all that there may be are
  // expected.
  const int most = option_->get_expected_max();
  option_->allow_extra_args(false)->expected(most, most);
  option_->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);  // fewer will do
  return *this;
}
const Argument& Argument::needs(const Argument& other) const {
  option_->needs(other.option_);
  return *this;
}
const Argument& Argument::excludes(const Argument& other) const {
  option_->excludes(other.option_);
  return *this;
}

Verb Verb::add_subcommand(const std::string& name, const std::string& what) const {
  return Verb(app_->add_subcommand(name, what));
}
void Verb::require_subcommand(int least, int most) const {
  app_->require_subcommand(static_cast<size_t>(least), static_cast<size_t>(most));
}
bool Verb::has_chosen() const { return !app_->get_subcommands().empty(); }
void Verb::refuse_options_before_verbs() const {
  for (CLI::App* verb : app_->get_subcommands([](const CLI::App*) { return true; }))
    verb->preparse_callback([app = app_, verb](size_t) {
      for (const CLI::Option* option : app->get_options())
        if (option->count() > 0 && option != app->get_help_ptr())
          throw UsageError(
              fmt::format("\"{}\" makes no use of {} before it: what it takes stands behind its name",
                          verb->get_name(), option->get_name()));
    });
}

void Verb::begin_group(const std::string& heading) const { app_->option_defaults()->group(heading); }

namespace {

template <class T>
struct Element {
  using Type = T;
};
template <class T>
struct Element<std::optional<T>> : Element<T> {};
template <class T>
struct Element<std::vector<T>> : Element<T> {};

// What is wrong with a whole number, or nothing. Zeros before it go: CLI11 would read 010 as eight, 0x10 as 16.
std::string make_decimal(std::string& text) {
  const size_t sign = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  const size_t other = text.find_first_not_of("0123456789", sign);
  if (other != std::string::npos || text.size() == sign)
    return fmt::format("it is a whole number, not \"{}\"", printable(text));
  const size_t first = std::min(text.find_first_not_of('0', sign), text.size() - 1);
  text.erase(sign, first - sign);
  return {};
}

}  // namespace

template <class T>
Argument Verb::add_option(const std::string& names, T& value, const std::string& what) const {
  CLI::Option* const option = app_->add_option(names, value, what);
  if constexpr (std::is_integral_v<typename Element<T>::Type>)
    option->transform(CLI::Validator(make_decimal, std::string()));
  return Argument(option);
}
template Argument Verb::add_option(const std::string&, std::string&, const std::string&) const;
template Argument Verb::add_option(const std::string&, int&, const std::string&) const;
template Argument Verb::add_option(const std::string&, int64_t&, const std::string&) const;
template Argument Verb::add_option(const std::string&, uint64_t&, const std::string&) const;
template Argument Verb::add_option(const std::string&, double&, const std::string&) const;
template Argument Verb::add_option(const std::string&, std::vector<std::string>&, const std::string&) const;
template Argument Verb::add_option(const std::string&, std::vector<int64_t>&, const std::string&) const;
template Argument Verb::add_option(const std::string&, std::optional<std::string>&, const std::string&) const;
template Argument Verb::add_option(const std::string&, std::optional<int>&, const std::string&) const;
template Argument Verb::add_option(const std::string&, std::optional<int64_t>&, const std::string&) const;
template Argument Verb::add_option(const std::string&, std::optional<double>&, const std::string&) const;

Argument Verb::add_flag(const std::string& names, bool& value, const std::string& what) const {
  return Argument(app_->add_flag(names, value, what));
}
void Verb::footer(const std::string& text) const { app_->footer(text); }
void Verb::callback(std::function<void()> run) const { app_->callback(std::move(run)); }

}  // namespace linnet::app
