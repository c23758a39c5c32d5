/* The decoder on arbitrary bytes in the three modes: no overread, and what it
 * reports lies inside the instruction. */
#include "cpu/decode.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        decode_init();
        for (unsigned mode = DECODE_16; mode <= DECODE_64; mode++) {
                struct insn i;
                int length = decode(data, size, (enum decode_mode)mode, &i);
                if (length <= 0)
                        continue;
                if ((size_t)length > size || length > INSN_SIZE_LIMIT || i.length != length ||
                    i.op == OP_INVALID || i.imm_at + i.imm_size > length ||
                    i.disp_at + i.disp_size > length || (i.has_modrm && i.modrm_at >= length))
                        abort();
        }
        return 0;
}
