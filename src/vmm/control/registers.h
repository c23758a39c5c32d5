/* The state of a vCPU for people. */
#pragma once

#include "codec/json.h"
#include "cpu/cpu.h"

/* Numbers are hexadecimal strings, for JSON's have 53 bits. The caller puts it. */
struct json_object *registers_json(const struct cpu_state *state);
