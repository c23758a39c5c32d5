/* A packet from the other side: what is accepted says the same when it is put together
 * again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct monitor_message message;
        if (monitor_parse(data, size, &message) < 0)
                return 0;
        static char packet[MONITOR_MESSAGE_MAX];
        ssize_t n = monitor_format(&message, packet);
        struct monitor_message again;
        if (n < 0 || monitor_parse(packet, (size_t)n, &again) < 0 || again.kind != message.kind ||
            again.text_size != message.text_size || again.early_size != message.early_size ||
            again.keys_size != message.keys_size || again.phase != message.phase ||
            again.exit_code != message.exit_code)
                abort();
        return 0;
}
