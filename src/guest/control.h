/* The control socket of a machine's isle-vmm (vmm/control/control.h), as far as it is needed here:
 * the balloon. What comes back is bounded and typed, for who broke out of the guest may be the one
 * who answers. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct control_balloon {
        uint64_t target_bytes, actual_bytes;
};

/* `directory_fd` is ROOT/ID/control. Both give up after ten seconds. */
int control_get_balloon(int directory_fd, struct control_balloon *ret, struct err *err);
int control_set_balloon(int directory_fd, uint64_t target_mib, struct err *err);

/* Of a whole HTTP answer, which a NUL follows: its body, where the status says that all is well.
 * The text is cut up. Pure, as the next. */
int control_parse_answer(char *text, size_t size, const char **ret_body, struct err *err);
int control_parse_balloon(char *text, size_t size, struct control_balloon *ret, struct err *err);
