# hnswlib's headers, nothing else of it: from LTM_HNSWLIB if given, from the system if they are of this release, otherwise
# out of its source distribution, which pip fetches and verifies once per build folder. Sets LTM_HNSWLIB_FOLDER.
set(LTM_HNSWLIB "" CACHE PATH "Folder that holds hnswlib/hnswlib.h of release 0.8.0")

set(LTM_HNSWLIB_VERSION 0.8.0)
set(LTM_HNSWLIB_SHA256 cb6d037eedebb34a7134e7dc78966441dfd04c9cf5ee93911be911ced951c44c)

# The first release with this header is the one whose interface we use.
set(marker hnswlib/stop_condition.h)

if(LTM_HNSWLIB)
    if(NOT EXISTS "${LTM_HNSWLIB}/${marker}")
        message(FATAL_ERROR "LTM_HNSWLIB: ${LTM_HNSWLIB}/${marker} not found; name the folder above hnswlib's headers, release ${LTM_HNSWLIB_VERSION}")
    endif()
    set(LTM_HNSWLIB_FOLDER "${LTM_HNSWLIB}")
    return()
endif()

find_path(LTM_HNSWLIB_SYSTEM ${marker})
if(LTM_HNSWLIB_SYSTEM)
    set(LTM_HNSWLIB_FOLDER "${LTM_HNSWLIB_SYSTEM}")
    return()
endif()

set(LTM_HNSWLIB_FOLDER "${CMAKE_BINARY_DIR}/hnswlib-${LTM_HNSWLIB_VERSION}")
if(NOT EXISTS "${LTM_HNSWLIB_FOLDER}/${marker}")
    message(STATUS "Fetching hnswlib ${LTM_HNSWLIB_VERSION}")
    set(work "${CMAKE_BINARY_DIR}/hnswlib-download")
    file(MAKE_DIRECTORY "${work}")
    file(WRITE "${work}/requirements.txt" "hnswlib==${LTM_HNSWLIB_VERSION} --hash=sha256:${LTM_HNSWLIB_SHA256}\n")
    execute_process(
        COMMAND "${Python_EXECUTABLE}" -m pip download --quiet --no-deps --no-binary hnswlib --require-hashes
                --dest "${work}" --requirement "${work}/requirements.txt"
        RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
    set(archive "${work}/hnswlib-${LTM_HNSWLIB_VERSION}.tar.gz")
    if(NOT failed EQUAL 0 OR NOT EXISTS "${archive}")
        message(FATAL_ERROR "hnswlib ${LTM_HNSWLIB_VERSION} can't be fetched; without a network unpack its source "
                            "distribution and configure with -DLTM_HNSWLIB=FOLDER\n${said}")
    endif()
    file(SHA256 "${archive}" found)
    if(NOT found STREQUAL LTM_HNSWLIB_SHA256)
        message(FATAL_ERROR "${archive}: SHA-256 is ${found}, expected ${LTM_HNSWLIB_SHA256}")
    endif()
    file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${CMAKE_BINARY_DIR}")
    if(NOT EXISTS "${LTM_HNSWLIB_FOLDER}/${marker}")
        message(FATAL_ERROR "${archive}: holds no ${marker}")
    endif()
endif()
