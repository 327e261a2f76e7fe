// The sentence with which something is refused.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "core/error.h"

namespace linnet::test {

/// What the Error says that body throws; "accepted" if it throws none.
inline std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

/// Expects an Error whose sentence holds that part.
inline void expect_refused(const std::string& part, const std::function<void()>& body) {
  const std::string sentence = refusal(body);
  EXPECT_NE(sentence.find(part), std::string::npos) << sentence;
}

}  // namespace linnet::test
