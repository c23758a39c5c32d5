/* The opcode rows and their index. Private to the decoder and its tests. */
#pragma once

#include "cpu/decode.h"

extern const struct opcode decode_rows[];
extern const unsigned decode_rows_length;

/* Rows [first, first + count) belong to (map, code). */
struct decode_slot {
        uint16_t first, count;
};

/* Memory forms of x87, [escape - 0xd8][ModRM.reg]: bytes read, or minus bytes
 * written; 0 is invalid. 28 and 108 shrink to 14 and 94 with 16-bit operands. */
extern const int8_t decode_x87_memory[8][8];
/* Register forms: a bit for each legal ModRM.rm. */
extern const uint8_t decode_x87_register[8][8];

/* Registers used beside the operands, by operation. */
struct decode_implicit {
        uint16_t read, written;
};
extern const struct decode_implicit decode_implicit[INSN_OP_COUNT];
