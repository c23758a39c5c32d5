/* Any bytes as a snapshot's state. They are read as they are, and once more with the checksum
 * and the size in the header put right, so that what is behind them is reached. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/snapshot/state.h"
#include "vmm/snapshot/tests/mend.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct part {
        uint8_t a;
        uint16_t b[3];
        uint64_t c;
        int64_t due_ns;
};

static const struct state_field fields[] = {
        STATE_FIELD(struct part, a, 3),
        STATE_ARRAY(struct part, b, 0x7fff),
        STATE_FIELD(struct part, c, UINT64_MAX),
        STATE_MOMENT(struct part, due_ns),
};

static void look(struct state_reader *reader)
{
        static const char *const kinds[] = { "cpu", "part", "x" };
        for (unsigned i = 0; i < 2 * ELEMENTS(kinds); i++) {
                struct state_section *s = NULL;
                struct part part = { 0 };
                struct err err = { 0 };
                uint8_t bytes[5];
                if (state_take(reader, kinds[i / 2], i % 2, 3, &s, &err) < 0)
                        continue;
                state_get_fields(s, &part, fields, ELEMENTS(fields));
                if (part.a > 3 || part.b[2] > 0x7fff)
                        abort();
                state_get_bytes(s, bytes, sizeof(bytes));
                while (state_left(s))
                        (void)state_get(s, 1);
                if (state_end(s, &err) < 0 && !err.text[0])
                        abort();
        }
        (void)state_all_taken(reader, NULL);
}

static void read_it(const uint8_t *data, size_t size)
{
        struct state_reader reader = { 0 };
        struct err err = { 0 };
        if (state_reader_init(&reader, "fuzz", data, size, 1000, &err) == 0)
                look(&reader);
        else if (!err.text[0])
                abort();
        state_reader_finish(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        read_it(data, size);
        if (size < STATE_HEADER_SIZE)
                return 0;
        auto_free uint8_t *copy = xmemdup(data, size);
        state_mend(copy, size);
        read_it(copy, size);
        return 0;
}
