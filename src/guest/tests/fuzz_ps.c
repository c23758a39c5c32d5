/* The first line are options of ps, the second is what the guest answers: a table of plain lines,
 * one a process, or a word why not. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "guest/ps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_table(const struct buf *table, size_t processes)
{
        size_t lines = 0;
        for (size_t i = 0; i < table->size; i++) {
                unsigned char c = (unsigned char)table->data[i];
                if (c == '\n')
                        lines++;
                else if (c < 0x20 || c > 0x7e)
                        abort();
        }
        if (lines != processes + 1)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        auto_free char *text = xstrndup((const char *)data, size);
        struct err err = { 0 };
        struct ps_columns *columns;
        auto_agent_reply reply = { 0 };
        auto_buf table = { 0 };
        char *answer = strchr(text, '\n');
        if (!answer)
                return 0;
        *answer++ = '\0';
        answer[strcspn(answer, "\n")] = '\0';
        auto_strv options = str_split(text, ' ');
        if (ps_parse(options, &columns, &err) < 0) {
                if (!*err_text(&err))
                        abort();
                return 0;
        }
        if (agent_reply_parse(answer, strlen(answer), &reply, &err) == 0) {
                ps_print(columns, &reply, 1800000000000000000, &table);
                check_table(&table, reply.processes_length);
        } else if (!*err_text(&err)) {
                abort();
        }
        ps_columns_free(columns);
        return 0;
}
