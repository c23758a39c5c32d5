/* One line of a log file that a container's output and a full disk have made. */
#include <stdint.h>
#include <stdlib.h>

#include "engine/log_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct log_record record = { 0 };
        if (log_record_parse((const char *)data, size, &record) == 0) {
                if ((record.stream != 1 && record.stream != 2) || record.text.size > 3 * size)
                        abort();
                struct buf out = { 0 };
                log_record_format(&record, true, true, &out);
                buf_finish(&out);
        }
        buf_finish(&record.text);
        return 0;
}
