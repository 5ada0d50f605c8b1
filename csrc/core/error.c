#include "diffence.h"

#include <stdarg.h>
#include <stdio.h>

df_code df_fail(df_error *error, df_code code, const char *format, ...) {
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        error->code = code;
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
    }
    return code;
}
