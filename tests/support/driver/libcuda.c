/* A stand-in for libcuda.so.1: one card, the second of the stand-in for NVML. */
#include <stddef.h>
#include <string.h>

int cuInit(unsigned flags) { return flags; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = 40 + index; return index != 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    const unsigned char card[16] = {0, 0, 0, 1, 0x11, 0x11, 0x22, 0x22,
                                    0x33, 0x33, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44};
    memcpy(uuid, card, 16);
    return device != 40;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 13 ? 1755000 : attribute == 16 ? 114 : 0;
    return device != 40 || !*value;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 84987740160; return device != 40; }
