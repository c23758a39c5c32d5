/* Whatever the other side sends, a line is a message or is refused with a word; and what is
 * taken is written, and read again, as the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/message.h"
#include "base/auto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_request(const char *line, size_t size)
{
        auto_agent_request request = { 0 }, again = { 0 };
        auto_buf text = { 0 }, second = { 0 };
        struct err err = { 0 };
        if (agent_request_parse(line, size, &request, &err) < 0) {
                if (!*err_text(&err))
                        abort();
                return;
        }
        agent_request_put(&request, &text);
        if (agent_request_parse(text.data, text.size - 1, &again, &err) < 0)
                abort();
        agent_request_put(&again, &second);
        if (second.size != text.size || memcmp(second.data, text.data, text.size) != 0)
                abort();
}

static void try_reply(const char *line, size_t size)
{
        auto_agent_reply reply = { 0 }, again = { 0 };
        auto_buf text = { 0 }, second = { 0 };
        struct err err = { 0 };
        if (agent_reply_parse(line, size, &reply, &err) < 0) {
                if (!*err_text(&err))
                        abort();
                return;
        }
        agent_reply_put(&reply, &text);
        if (agent_reply_parse(text.data, text.size - 1, &again, &err) < 0)
                abort();
        agent_reply_put(&again, &second);
        if (second.size != text.size || memcmp(second.data, text.data, text.size) != 0)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        auto_buf in = { 0 };
        struct err err = { 0 };
        buf_append(&in, data, size);
        for (;;) {
                auto_free char *line = NULL;
                size_t length;
                if (message_take_line(&in, &line, &length, &err) <= 0)
                        return 0;
                try_request(line, length);
                try_reply(line, length);
        }
}
